"Tells pip what settings.ini says; change it there."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
# the README's links and pictures, for a page that isn't the repository's
readme = Path('README.md').read_text(encoding='utf-8').replace('](images/', f"]({cfg['git_url']}/raw/{cfg['branch']}/images/")
readme = re.sub(r'\]\((?!https?:|#)', f"]({cfg['git_url']}/blob/{cfg['branch']}/", readme)

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme,
    long_description_content_type='text/markdown',
    author=cfg['author'],
    url=cfg['git_url'],
    license='Apache-2.0',
    keywords=cfg['keywords'].split(),
    packages=[cfg['lib_name']],
    package_data={cfg['lib_name']: ['py.typed', 'results/*.csv', 'weights/*', 'web/*']},
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in ('dev', 'site', 'browser', 'onnx')},
)
