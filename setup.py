"Tells pip what settings.ini says; change it there."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    license='Apache-2.0',
    keywords=cfg['keywords'].split(),
    packages=[cfg['lib_name']],
    package_data={cfg['lib_name']: ['results/*.csv', 'weights/*', 'web/*']},
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in ('dev', 'site', 'browser', 'onnx')},
)
