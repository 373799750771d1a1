"A chapter in JupyterLab in a real browser, from the first cell to the last."
import json, os, shutil, socket, subprocess, sys, time
from urllib.request import urlopen

import pytest

import series

chromium = shutil.which('chromium') or shutil.which('google-chrome')
playwright = pytest.importorskip('playwright.sync_api', reason='needs pip install playwright')
pytestmark = pytest.mark.skipif(not chromium, reason='needs Chromium')

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


@pytest.mark.parametrize('name', ['00_data', '02_linear_model'])
def test_runs_from_first_to_last_cell(lab, name, tmp_path):
    flags = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
             '--disable-sync', '--no-first-run']
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={'width': 1100, 'height': 1400})
        page.goto(f'{lab}/doc/tree/{name}.ipynb?token=t')
        page.wait_for_selector('.jp-NotebookPanel .jp-Cell', timeout=60_000)
        page.set_default_timeout(240_000)
        assert page.evaluate(RUN_ALL)
        assert page.locator('.jp-OutputArea-output img').count() >= 3
        assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
        if os.environ.get('SCREENSHOTS'): page.screenshot(path=f"{os.environ['SCREENSHOTS']}/{name}.png")
        browser.close()
