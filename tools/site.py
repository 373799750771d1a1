"""Build the web site in _site/: the README and the notebooks as they are committed; nothing is executed.

Sphinx gets a copy of what it shows, in which the links between README and notebooks hold as they stand.
"""
import shutil, sys

from series import NBS, ROOT, RUN, chapters
from sphinx.cmd.build import main

SITE, SOURCE, HTML = ROOT/'_site', RUN/'site', RUN/'html'
parts = {'I Three stages': range(0, 4), 'II Where gradients come from': range(4, 7), 'III Training well': range(7, 11),
         'IV Beyond': range(11, 15)}


def contents():
    "The chapters by part, for the margin of the site."
    pages = {part: [f'nbs/{path.stem}' for path in chapters if int(path.stem[:2]) in numbers] for part, numbers in parts.items()}
    pages['Appendices'] = sorted(f'nbs/{path.stem}' for path in NBS.glob('appendix_*.ipynb'))
    for part, names in (pages | {'The project': ['CHANGELOG', 'CONTRIBUTING']}).items():
        yield '\n'.join(['```{toctree}', ':hidden:', f':caption: {part}', '', *names, '```'])


def stage():
    "Copy what the site shows."
    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE/'nbs').mkdir(parents=True)
    for path in NBS.glob('*_*.ipynb'): shutil.copy(path, SOURCE/'nbs')
    for name in ('CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE'): shutil.copy(ROOT/name, SOURCE)
    shutil.copytree(ROOT/'images', SOURCE/'images')
    shutil.copy(ROOT/'tools'/'site_conf.py', SOURCE/'conf.py')
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    (SOURCE/'index.md').write_text('\n\n'.join([readme, *contents()]), encoding='utf-8')


if __name__ == '__main__':
    stage()
    shutil.rmtree(HTML, ignore_errors=True)      # built beside the copy, since myst-nb leaves a folder next to its pages
    if failed := main(['-q', '-W', '--keep-going', str(SOURCE), str(HTML)]): sys.exit(failed)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(HTML, SITE)
    print(f'the site is there: {SITE.name}/index.html')
