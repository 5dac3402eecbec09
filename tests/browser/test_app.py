"""tools/app.py in the browser: a photo in, its page out; broken uploads."""

import runpy
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest
from mmcv import imwrite

from locat_mm.cli.app import App
from tests.support import ROOT
from tests.support.demo_models import config, weights

pytestmark = pytest.mark.browser
_BUTTON = '//button[normalize-space(.)="Look inside"]'


@pytest.fixture(scope='module')
def address(place):
    """The app, served from this process."""
    import uvicorn

    build = runpy.run_path(str(ROOT / 'tools' / 'app.py'))['build']
    (place / 'pages').mkdir()
    name = 'locatvit_segment'
    app = build(App(config(name), weights(name, place), place / 'pages', most_megabytes=1))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level='warning'))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f'http://127.0.0.1:{port}'
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(scope='module')
def uploads(place):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 8, 3)).repeat(9, 0).repeat(9, 1).astype(np.uint8)
    imwrite(pixels, str(place / 'scene.png'))
    (place / 'words.png').write_text('no image')
    imwrite(rng.integers(0, 255, (900, 900, 3)).astype(np.uint8), str(place / 'heavy.png'))
    return place


def send(window, path) -> None:
    """Upload a file as the photo and press the button."""
    window.driver.find_element('css selector', 'input[type=file]').send_keys(str(path))
    window.wait(lambda: path.stem in text(window))
    button = window.wait(lambda: window.driver.find_elements('xpath', _BUTTON))
    window.run('arguments[0].click()', button[0])


def text(window) -> str:
    return window.run('return document.body.innerText')


def open_app(window, address) -> None:
    window.driver.get(address)
    window.wait(lambda: window.driver.find_elements('css selector', 'input[type=file]'), 60)


def test_a_photo_gives_a_page(window, address, uploads):
    open_app(window, address)
    send(window, uploads / 'scene.png')
    frame = window.wait(lambda: window.driver.find_elements('css selector', 'iframe'), 60)[0]
    page = frame.get_attribute('src')
    assert page.startswith(f'{address}/pages/')
    with urllib.request.urlopen(page) as answer:
        assert b'id="data"' in answer.read()
    window.open(page)
    assert {'alpha', 'class'} <= window.numbers(0).keys()


def test_a_broken_upload_is_told_and_the_app_goes_on(window, address, uploads):
    open_app(window, address)
    send(window, uploads / 'words.png')
    window.wait(lambda: 'words.png cannot be decoded' in text(window))
    open_app(window, address)
    send(window, uploads / 'heavy.png')
    window.wait(lambda: 'heavy.png has 2.4 MB, and at most 1 are taken' in text(window))
    open_app(window, address)
    send(window, uploads / 'scene.png')
    window.wait(lambda: window.driver.find_elements('css selector', 'iframe'), 60)
