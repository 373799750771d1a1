"In a real browser: a chapter in JupyterLab from the first cell to the last, the sheet to draw on as a page and as a widget."
import json, os, shutil, socket, subprocess, sys, time
from contextlib import contextmanager
from urllib.request import urlopen

import nbformat
import pytest

import series
from mnist_foundations.drawing import examples, write_page

chromium = shutil.which('chromium') or shutil.which('google-chrome')
playwright = pytest.importorskip('playwright.sync_api', reason='needs pip install playwright')
pytestmark = pytest.mark.skipif(not chromium, reason='needs Chromium')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--no-first-run']

RUN_ALL = """async () => {
    const panel = jupyterapp.shell.currentWidget
    await panel.context.ready
    await panel.sessionContext.ready      // else two kernels start
    return await jupyterapp.commands.execute('notebook:run-all-cells')
}"""


@pytest.fixture
def lab(tmp_path):
    "The address of a JupyterLab over a copy of nbs/, with settings of its own."
    shutil.copytree(series.NBS, tmp_path/'nbs')
    settings = tmp_path/'settings'/'@jupyterlab'
    for plugin, value in (('apputils-extension/notification', {'fetchNews': 'false', 'checkForUpdates': False}),
                          ('notebook-extension/tracker', {'windowingMode': 'none'})):
        (settings/plugin).parent.mkdir(parents=True, exist_ok=True)
        (settings/f'{plugin}.jupyterlab-settings').write_text(json.dumps(value))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | {f'JUPYTER{kind}_DIR': str(tmp_path/kind) for kind in ('_CONFIG', '_DATA', 'LAB_WORKSPACES')}
    env['JUPYTERLAB_SETTINGS_DIR'] = str(tmp_path/'settings')
    server = subprocess.Popen(
        [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}',
         '--ServerApp.port_retries=0', '--IdentityProvider.token=t', f'--ServerApp.root_dir={tmp_path}/nbs',
         '--LabApp.expose_app_in_browser=True'], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try: urlopen(f'http://127.0.0.1:{port}/api/status?token=t', timeout=1).close(); break
            except OSError: time.sleep(.5)
        yield f'http://127.0.0.1:{port}'
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def a_page(**options):
    "A page of a new browser."
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(**options)
        page.set_default_timeout(240_000)
        yield page
        browser.close()


def open_notebook(page, lab, name):
    page.goto(f'{lab}/doc/tree/{name}.ipynb?token=t')
    page.wait_for_selector('.jp-NotebookPanel .jp-Cell', timeout=60_000)


def keep_shot(page, name):
    if os.environ.get('SCREENSHOTS'): page.screenshot(path=f"{os.environ['SCREENSHOTS']}/{name}.png", full_page=True)


@pytest.mark.parametrize('name', ['00_data', '02_linear_model'])
def test_runs_from_first_to_last_cell(lab, name, tmp_path):
    with a_page(viewport={'width': 1100, 'height': 1400}) as page:
        open_notebook(page, lab, name)
        assert page.evaluate(RUN_ALL)
        assert page.locator('.jp-OutputArea-output img').count() >= 3
        assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
        keep_shot(page, name)


# The sheet to draw on.

@pytest.fixture(scope='module')
def drawing_page(tmp_path_factory):
    path = tmp_path_factory.mktemp('page')/'draw.html'
    write_page(path)
    return path.as_uri()


def draw(page, strokes, size=1., across=0, down=0):
    "With the mouse, on the sheet, whose sides are 280 units; once the answer has been found."
    box = page.locator('.paper canvas').bounding_box()
    unit = box['width']/280
    for stroke in strokes:
        places = [(box['x'] + unit*(x*size + across), box['y'] + unit*(y*size + down)) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]: page.mouse.move(*place, steps=4)
        page.mouse.up()
    page.wait_for_timeout(120)


def answers(page): return page.locator('article .digit').all_inner_texts()


@contextmanager
def at_work(address, **options):
    "The page, whose console stays free of errors and which asks nobody for anything."
    with a_page(**options) as page:
        said, asked = [], []
        page.on('console', lambda message: said.append(message.text) if message.type in ('error', 'warning') else None)
        page.on('pageerror', lambda error: said.append(str(error)))
        page.on('request', lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        assert not said and [url for url in asked if not url.startswith(('file:', 'data:'))] == []


@pytest.mark.parametrize('digit', examples)
@pytest.mark.parametrize('where', ['middle', 'corner'])
def test_a_digit_drawn_with_the_mouse_is_read(drawing_page, digit, where):
    with at_work(drawing_page, viewport={'width': 1280, 'height': 900}) as page:
        assert page.locator('.invitation').is_visible() and answers(page) == ['–']*4
        draw(page, examples[digit], *((1, 0, 0) if where == 'middle' else (.5, 130, 135)))
        assert answers(page)[2:] == [str(digit)]*2                                   # the averages and one layer may err
        sure = page.locator('[data-net=small_conv] .best b').inner_text()
        assert int(sure.rstrip('%')) > 80
        assert float(page.locator('body').get_attribute('data-milliseconds')) < 50
        page.wait_for_timeout(800)
        assert f'Read as {digit}' in page.locator('[aria-live]').nth(1).inner_text()
        if where == 'middle': keep_shot(page, f'page-{digit}')


def test_undo_and_clear(drawing_page):
    with at_work(drawing_page) as page:
        draw(page, [examples[7][0]])
        draw(page, [[(110, 140), (190, 140)]])
        assert answers(page)[3] == '7'
        for name, left in (('Undo', '7'), ('Undo', '–'), ('Undo', '–')):
            page.get_by_role('button', name=name).click()
            page.wait_for_timeout(120)
            assert answers(page)[3] == left
        draw(page, examples[3])
        assert answers(page)[3] == '3'
        page.get_by_role('button', name='Clear').click()
        page.wait_for_timeout(120)
        assert answers(page) == ['–']*4


def test_keyboard_only(drawing_page):
    with at_work(drawing_page) as page:
        page.keyboard.press('Tab')
        assert page.evaluate("document.activeElement.tagName") == 'CANVAS'
        def go(key, times):
            for _ in range(times): page.keyboard.press(key)
        go('ArrowUp', 10)
        go('ArrowLeft', 6)
        page.keyboard.press('Space')                                                 # a 7: to the right, and down aslant
        go('ArrowRight', 13)
        for n in range(22):
            page.keyboard.press('ArrowDown')
            if n % 2: page.keyboard.press('ArrowLeft')
        page.keyboard.press('Space')
        page.wait_for_timeout(900)
        assert answers(page)[3] == '7'
        inked = page.evaluate("Array.from(document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data)")
        dark = [(i // 4 // 28, i // 4 % 28) for i in range(0, len(inked), 4) if inked[i] < 100]
        top, bottom = ([across for down, across in dark if down == row] for row in (min(dark)[0], max(dark)[0]))
        assert max(top) > max(bottom) and min(top) < min(bottom)      # the bar to the right, and the stem back to the left
        assert 'Read as 7' in page.locator('[aria-live]').nth(1).inner_text()
        page.keyboard.press('Control+z')
        page.wait_for_timeout(120)
        assert answers(page)[3] == '–'
        page.keyboard.press('Space')
        go('ArrowDown', 5)
        page.keyboard.press('Escape')
        page.wait_for_timeout(120)
        assert answers(page)[3] == '–'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1280, 390])
def test_no_scrolling_sideways_and_nothing_that_axe_finds(drawing_page, scheme, width):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='needs pip install axe-playwright-python')
    with at_work(drawing_page, viewport={'width': width, 'height': 900}, color_scheme=scheme, has_touch=width < 500) as page:
        for strokes in ([], examples[3]):
            draw(page, strokes)
            assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
            found = axe.Axe().run(page).response['violations']
            assert not found, [(each['id'], each['nodes'][0]['html']) for each in found]
        assert answers(page)[3] == '3'
        keep_shot(page, f'page-{scheme}-{width}')


@pytest.mark.parametrize('theme', ['Light', 'Dark'] if os.environ.get('SCREENSHOTS') else ['Light'])
def test_the_widget_in_jupyterlab(lab, theme, tmp_path):
    settings = tmp_path/'settings'/'@jupyterlab'/'apputils-extension'/'themes.jupyterlab-settings'
    settings.write_text(json.dumps({'theme': f'JupyterLab {theme}'}))
    cells = ['from mnist_foundations.drawing import DigitCanvas', 'canvas = DigitCanvas()\ncanvas']
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells],
                                  metadata={'kernelspec': {'name': 'python3', 'display_name': 'python3'}})
    nbformat.write(nb, tmp_path/'nbs'/'sheet.ipynb')
    with a_page(viewport={'width': 1100, 'height': 800}) as page:
        open_notebook(page, lab, 'sheet')
        assert page.evaluate(RUN_ALL)
        page.wait_for_selector('.mnist-drawing.widget canvas')
        for digit in examples:
            page.get_by_role('button', name='Clear').click()
            draw(page, examples[digit])
            page.wait_for_function(f"document.querySelector('.widget .digit').textContent === '{digit}'", timeout=20_000)
        keep_shot(page, f'widget-{theme}')
        if theme == 'Dark': return
        axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='needs pip install axe-playwright-python')
        found = axe.Axe().run(page, context='.mnist-drawing.widget').response['violations']
        assert not found, [(each['id'], each['nodes'][0]['html']) for each in found]
