"""Build the web site in _site/, and the same as a book, _site/mnist_foundations.epub, from the README, the notebooks as
they are committed, the glossary and the package's docments; nothing is executed.

Sphinx gets a copy of what it shows, in which the links between README and notebooks hold as they stand.
"""
import gc, re, shutil, sys, zipfile

import nbformat
from series import NBS, ROOT, RUN, chapters
from site_api import title, write_pages
from sphinx.cmd.build import main

from mnist_foundations.drawing import write_page

SITE, SOURCE, BUILT = ROOT/'_site', RUN/'site', RUN/'built'
parts = {'I Three stages': range(0, 4), 'II Where gradients come from': range(4, 7), 'III Training well': range(7, 11),
         'IV Beyond': range(11, 15)}


def listed(path):
    "A notebook's line in the margin: its title up to the colon."
    return f'{title(nbformat.read(path, as_version=4))} <nbs/{path.stem}>'


def contents():
    "What is in the margin: the chapters by part, the appendices last."
    pages = {part: [listed(path) for path in chapters if int(path.stem[:2]) in numbers] for part, numbers in parts.items()}
    pages['At hand'] = ['Draw a digit <draw>', 'nbs/glossary', 'api/index']
    pages['The project'] = ['CHANGELOG', 'CONTRIBUTING', 'SECURITY']
    pages['Appendices'] = [listed(path) for path in sorted(NBS.glob('appendix_*.ipynb'))]
    for part, names in pages.items(): yield '\n'.join([':::{toctree}', ':hidden:', f':caption: {part}', '', *names, ':::'])


def glossary():
    "The glossary, whose list becomes terms that the search knows."
    text = (NBS/'glossary.md').read_text(encoding='utf-8')
    opening, *terms = re.split(r'^- \*\*(.+?)\*\*: ', text, flags=re.M)
    entries = [f'{term}\n  {sentence.strip()}' for term, sentence in zip(terms[::2], terms[1::2])]
    return opening + '\n\n'.join([':::{glossary}', *entries, ':::', ''])


DRAW = """# Your own digit, read

:::{only} not epub
Draw with the mouse, a finger or the arrow keys; four nets of these chapters read along. The sheet has
<a href="_static/draw.html">a page of its own</a> as well, and [chapter 13](nbs/13_your_own_digit.ipynb) tells how it works.

<iframe src="_static/draw.html" title="A sheet to draw a digit on, and four nets that read it" class="draw"></iframe>
:::

:::{only} epub
A book is no sheet to draw on. The site has one, and `make draw` opens it.
:::
"""


def stage():
    "Copy what the site shows, and write the pages that are made."
    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE/'nbs').mkdir(parents=True)
    for path in NBS.glob('*_*.ipynb'): shutil.copy(path, SOURCE/'nbs')
    for name in ('CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'LICENSE'): shutil.copy(ROOT/name, SOURCE)
    shutil.copytree(ROOT/'images', SOURCE/'images')
    shutil.copytree(ROOT/'tools'/'site_static', SOURCE/'static')
    write_page(SOURCE/'static'/'draw.html')
    shutil.copy(ROOT/'tools'/'site_conf.py', SOURCE/'conf.py')
    write_pages(SOURCE/'api')
    (SOURCE/'nbs'/'glossary.md').write_text(glossary(), encoding='utf-8')
    (SOURCE/'draw.md').write_text(DRAW, encoding='utf-8')
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    (SOURCE/'index.md').write_text('\n\n'.join([readme, *contents()]), encoding='utf-8')


def bind(made):
    "Put the book into the site; its list of contents has to say which pages hold formulas, and Sphinx does not."
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(SITE/made.name, 'w', zipfile.ZIP_DEFLATED) as new:
        def item(line): return line[0] + (b' properties="mathml"' if b'<math' in old.read(line[1].decode()) else b'')
        for part in old.infolist():
            data = old.read(part)
            new.writestr(part, re.sub(rb'<item [^>]*href="([^"]+\.xhtml)"', item, data) if part.filename == 'content.opf' else data)


if __name__ == '__main__':
    gc.disable()      # Sphinx makes millions of nodes, and nearly all last: a quarter of the time went into looking for those that don't
    stage()
    shutil.rmtree(BUILT, ignore_errors=True)      # built beside the copy, since myst-nb leaves a folder next to its pages
    for builder in ('html', 'epub'):
        failed = main(['-q', '-W', '--keep-going', '-b', builder, '-d', str(BUILT/'read'), str(SOURCE), str(BUILT/builder)])
        if failed: sys.exit(failed)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(BUILT/'html', SITE)
    bind(next((BUILT/'epub').glob('*.epub')))
    print(f'the site is there: {SITE.name}/index.html')
