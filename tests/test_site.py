"The web site that tools/site.py builds from what is committed: whole and described, and as a browser shows it."
import os, shutil, subprocess, sys, zipfile
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import nbformat
import pytest

import metadata
import series

pytest.importorskip('sphinx', reason="needs pip install -e '.[site]'")
from bs4 import BeautifulSoup

pytestmark = pytest.mark.xdist_group('site')
SITE = series.ROOT/'_site'
notebooks = sorted(series.NBS.glob('*_*.ipynb'))
modules = sorted(path.stem for path in (series.ROOT/'mnist_foundations').glob('[a-z]*.py'))
chromium = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.fixture(scope='module')
def pages():
    "The pages of the site, newly built, by their path in it."
    built = subprocess.run([sys.executable, series.ROOT/'tools'/'site.py'], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    return {path.relative_to(SITE).as_posix(): BeautifulSoup(path.read_text(encoding='utf-8'), 'html.parser')
            for path in SITE.rglob('*.html') if '_static' not in path.parts}


def test_every_link_inside_leads_somewhere_and_nothing_is_fetched(pages):
    names = {page: {tag.get('id') for tag in soup.find_all(id=True)} for page, soup in pages.items()}
    for page, soup in pages.items():
        for tag in soup.find_all(['a', 'img', 'script', 'link', 'iframe']):
            address = urlparse(unquote(tag.get('href') or tag.get('src') or ''))
            if address.scheme == 'data': continue
            if address.scheme or address.netloc:
                assert tag.name == 'a', f'{page} fetches {tag}'
                continue
            target = (SITE/page).parent/address.path if address.path else SITE/page
            assert target.is_file(), f'{page}: {tag}'
            other = Path(os.path.relpath(target, SITE)).as_posix()
            if address.fragment and other in names: assert address.fragment in names[other], f'{page}: {tag}'


@pytest.mark.parametrize('path', notebooks, ids=lambda path: path.stem)
def test_a_notebook_keeps_its_alt_texts_and_its_folds(pages, path):
    cells, body = nbformat.read(path, as_version=4).cells, pages[f'nbs/{path.stem}.html'].article
    expected = [alt for cell in cells for alt in metadata.alts(cell)]
    found = [img.get('alt') for img in body.select('.cell_output img')]
    assert len(found) == len(expected)
    for alt, shown in zip(expected, found): assert ' '.join(alt.split()) in ' '.join(shown.split())
    folded = [cell for cell in cells if 'hide-input' in cell.metadata.get('tags', []) and 'remove-cell' not in cell.metadata.tags]
    assert len(body.select('div.cell details.hide')) == len(folded)
    shown = [cell for cell in cells if cell.cell_type == 'code' and cell.source.strip() and 'remove-cell' not in cell.metadata.get('tags', [])]
    assert len(body.select('div.cell_input')) == len(shown)
    assert 'default_exp' not in body.text


def test_the_margin_has_the_parts_the_glossary_the_package_and_the_appendices_last(pages):
    tree = pages['index.html'].select_one('.sidebar-tree')
    captions = [caption.text for caption in tree.select('.caption-text')]
    assert captions == ['I Three stages', 'II Where gradients come from', 'III Training well', 'IV Beyond', 'At hand', 'The project', 'Appendices']
    linked = [Path(a['href']).stem for a in tree.select('li.toctree-l1 > a')]
    chapters = [path.stem for path in series.chapters]
    assert linked[:len(chapters)] == chapters and {'draw', 'glossary', 'index'} <= set(linked)
    assert linked[-len(notebooks) + len(chapters):] == sorted({path.stem for path in notebooks} - set(chapters))


@pytest.mark.parametrize('name', modules)
def test_each_public_name_is_described_with_its_source_and_its_chapter(pages, name):
    page = pages[f'api/{name}.html']
    module = import_module(f'mnist_foundations.{name}')
    for public in module.__all__:
        entry = page.find(id=f'mnist_foundations.{name}.{public}')
        assert entry, f'{public} is missing'
        if not callable(getattr(module, public)): continue
        assert entry.select_one('a[href*="_modules"]'), f'{public} has no source'
        assert len(entry.find_next('dd').text.split()) >= 3
        chapter = entry.find_parent('section').select_one('a[href*="nbs/"]')['href'].partition('#')
        section = pages[f'nbs/{Path(chapter[0]).name}'].find(id=chapter[2]) if chapter[2] else pages[f'nbs/{Path(chapter[0]).name}']
        assert public in section.text, f'{public} is not in {chapter}'


def test_shapes_errors_and_types_of_an_entry(pages):
    text = ' '.join(pages['api/net.html'].find(id='mnist_foundations.net.simple_net').find_parent('dl').text.split())
    assert '(n, p) floating point images' in text and 'Raises TypeError or ValueError' in text and '→ torch.Tensor' in text


def test_every_term_of_the_glossary_can_be_linked(pages):
    terms = [line for line in (series.NBS/'glossary.md').read_text(encoding='utf-8').splitlines() if line.startswith('- **')]
    assert len(pages['nbs/glossary.html'].select('dl.glossary > dt[id]')) == len(terms) > 100


def test_the_book_holds_every_chapter_and_its_pictures(pages):
    with zipfile.ZipFile(SITE/'mnist_foundations.epub') as book:
        assert book.namelist()[0] == 'mimetype' and book.testzip() is None
        for path in notebooks:
            page = BeautifulSoup(book.read(f'nbs/{path.stem}.xhtml'), 'html.parser')
            images = page.select('.cell_output img')
            expected = [alt for cell in nbformat.read(path, as_version=4).cells for alt in metadata.alts(cell)]
            assert len(images) == len(expected) and all(img.get('alt') for img in images)
            for img in images: assert os.path.normpath(f"nbs/{img['src']}").replace(os.sep, '/') in book.namelist()
        assert b'<math' in book.read('nbs/05_backprop.xhtml')
        for name in book.namelist():
            if name.endswith(('.xhtml', '.opf')): ElementTree.fromstring(book.read(name))       # strict, as readers of books are


def test_the_book_is_valid(pages):
    checker = shutil.which('epubcheck')       # Debian's is a jar
    if not (checker and shutil.which('java')): pytest.skip('needs epubcheck and Java')
    said = subprocess.run(['java', '-jar', checker, SITE/'mnist_foundations.epub'], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr[:2000]


# In a browser.

STATES = [('light', 1200), ('dark', 1200), ('light', 390), ('dark', 390)]


@pytest.fixture(scope='module')
def browser():
    if not chromium: pytest.skip('needs Chromium')
    playwright = pytest.importorskip('playwright.sync_api', reason='needs pip install playwright')
    with playwright.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking',
                                                                   '--disable-component-update', '--disable-sync', '--no-first-run'])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    "A page whose console stays silent and which asks nobody for anything."
    opened, said = browser.new_page(), []
    opened.on('console', lambda message: said.append(message.text) if message.type in ('error', 'warning') else None)
    opened.on('pageerror', lambda error: said.append(str(error)))
    opened.on('request', lambda request: None if request.url.startswith(('file:', 'data:')) else said.append(request.url))
    yield opened
    opened.close()
    assert not said


def test_each_page_light_and_dark_wide_and_narrow(pages, page):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='needs pip install axe-playwright-python').Axe()
    serious = set()
    for name in sorted(pages):
        page.goto((SITE/name).as_uri())
        for scheme, width in STATES:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(dict(width=width, height=900))
            assert page.evaluate('document.documentElement.scrollWidth <= innerWidth'), f'{name} scrolls sideways at {width}'
            dark = page.evaluate('getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c < 100)')
            assert dark == (scheme == 'dark'), f'{name} is not {scheme}'
            if name.startswith('_modules') or (scheme, width) in STATES[1:3]: continue
            code = {} if name == 'nbs/05_backprop.html' else {'exclude': [['.highlight']]}      # coloured alike everywhere
            found = axe.run(page, code or None, {'preload': False, 'iframes': False}).response['violations']
            serious |= {(each['id'], each['nodes'][0]['html'], name) for each in found if each['impact'] in ('serious', 'critical')}
        if name == 'nbs/05_backprop.html':
            assert page.evaluate("document.querySelectorAll('math').length") > 50
            assert page.evaluate("document.querySelector('.formula mfrac').getBoundingClientRect().height") > 25      # one above the other
            assert '$' not in page.evaluate("document.querySelector('article').innerText.replace(/\\$\\(/g, '')")
    assert not serious, '\n'.join(map(str, sorted(serious)))


def test_search_finds_from_a_file(pages, page):
    page.goto((SITE/'index.html').as_uri())
    page.locator('.sidebar-search').fill('validate_epoch')
    page.locator('.sidebar-search').press('Enter')
    page.wait_for_selector('#search-results li a')
    page.wait_for_timeout(500)
    first = page.locator('#search-results li a').first
    assert 'validate_epoch' in first.inner_text()
    first.click()
    assert page.url.endswith('api/net.html#mnist_foundations.net.validate_epoch')


def test_a_digit_is_read_on_the_site(pages, page):
    from mnist_foundations.drawing import examples
    page.set_viewport_size(dict(width=1200, height=1000))
    page.goto((SITE/'draw.html').as_uri())
    sheet = page.frame_locator('iframe.draw')
    box = sheet.locator('.paper canvas').bounding_box()
    for stroke in examples[7]:
        places = [(box['x'] + x*box['width']/280, box['y'] + y*box['height']/280) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]: page.mouse.move(*place, steps=4)
        page.mouse.up()
    page.wait_for_timeout(200)
    assert sheet.locator('[data-net=small_conv] .digit').inner_text() == '7'
