"""Draw a 3 on the page that `make draw` opens, in a real browser, and keep the picture that README shows, images/page.png.

    python tools/page_picture.py

Needs Chromium, and playwright: pip install -e '.[browser]'.
"""
import io, shutil, tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from series import ROOT

from mnist_foundations.drawing import examples, write_page

if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        write_page(Path(folder)/'draw.html')
        browser = p.chromium.launch(executable_path=shutil.which('chromium') or shutil.which('google-chrome'), args=['--no-sandbox'])
        page = browser.new_page(viewport={'width': 1280, 'height': 720})
        page.goto((Path(folder)/'draw.html').as_uri())
        box = page.locator('.paper canvas').bounding_box()
        for stroke in examples[3]:
            places = [(box['x'] + x*box['width']/280, box['y'] + y*box['height']/280) for x, y in stroke]
            page.mouse.move(*places[0])
            page.mouse.down()
            for place in places[1:]: page.mouse.move(*place, steps=5)
            page.mouse.up()
        page.wait_for_timeout(300)
        picture = Image.open(io.BytesIO(page.locator('main').screenshot()))
        browser.close()
    picture.convert('RGB').quantize(128, dither=Image.Dither.NONE).save(ROOT/'images'/'page.png', optimize=True)
