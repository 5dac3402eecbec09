"""The page of inspect_locat.py --html: numbers, mouse, keys, address, narrow windows."""

import runpy
import time
from pathlib import Path

import numpy as np
import pytest
from mmcv import imwrite

from locat_mm.analysis.inspection import Inspector
from tests.support import ROOT
from tests.support.demo_models import config, weights

pytestmark = pytest.mark.browser
inspect = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'inspect_locat.py'))['main']
#: name -> config, and a second config to compare with
PAGES = {
    'two': ('vit_segment', 'locatvit_segment'),
    'classifier': ('locatvit_classify',),
    'swin': ('families/locatswin_classify',),
    'jumbo': ('families/locatjumbo_segment',),
    'rope': ('families/locatropevit_segment',),
    'plain': ('vit_classify',),
}
MODELS = [(page, index) for page, names in PAGES.items() for index in range(len(names))]


@pytest.fixture(scope='module')
def image(place) -> Path:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 9, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    imwrite(pixels, str(place / 'wide.png'))
    return place / 'wide.png'  # 48×72 pixels: 6×9 patches of 8


@pytest.fixture(scope='module')
def page(place, image):
    """The address of a page; each is written once."""

    def write(name: str) -> str:
        out = place / f'{name}.html'
        if not out.exists():
            first, *second = ([config(n), weights(n, place)] for n in PAGES[name])
            compare = ['--compare', *second[0]] if second else []
            inspect([*first, str(image), '--html', str(out), *compare])
        return out.as_uri()

    return write


@pytest.fixture(scope='module')
def records(place, image):
    """What Python records of a page's model."""
    return lambda page, index: Inspector(
        config(PAGES[page][index]), weights(PAGES[page][index], place)
    )(image, 10**6, features=True)


@pytest.mark.parametrize('page_name, index', MODELS)
def test_a_click_shows_the_recorded_numbers(window, page, records, page_name, index):
    address = page(page_name)
    recorded = records(page_name, index)
    window.open(f'{address}#layer=1&patch=0,0')
    assert window.console() == []
    rows, columns = recorded.grid_size
    window.click('attention', rows - 2, 3, (rows, columns))
    window.wait_for(row=rows - 2, column=3, layer=1)
    found = window.numbers(index)
    layer = recorded.layers[1]
    x, y = recorded.point_of(rows - 2, 3)
    row, column = recorded.patch_at(layer, x, y)
    attention = layer.attention_of(row, column).numpy()
    step = 0.004 * np.nanmax(attention) + 1e-7  # bytes, with a scale for each row
    assert found['self'] == pytest.approx(attention[row, column], abs=step)
    assert found['strongest'] == pytest.approx(np.nanmax(attention), abs=step)
    assert found['rest'] == pytest.approx(1 - np.nansum(attention), abs=1e-5)
    down, across = np.indices(attention.shape) - np.array([row, column])[:, None, None]
    distance = np.nansum(attention * np.hypot(down, across)) / np.nansum(attention)
    assert found['distance'] == pytest.approx(distance, rel=0.01)
    if layer.sigma is None:
        assert 'alpha' not in found
    else:
        sigma = layer.sigma[row, column].tolist()
        assert found['alpha'] == pytest.approx(float(layer.alpha[row, column]), rel=1e-6)
        assert [found['sigmaRows'], found['sigmaColumns']] == pytest.approx(sigma, rel=1e-6)
    if layer.similarity is not None:
        assert found['similarity'] == pytest.approx(float(layer.similarity[row, column]), abs=1e-6)
    if recorded.segmentation is not None:
        assert found['class'] == recorded.segmentation[int(y), int(x)]
    assert window.console() == []


def test_one_head(window, page, records):
    window.open(f'{page("two")}#layer=2&patch=1,4&head=1')
    layer = records('two', 1).layers[2]
    weights_of_head = layer.head_attention[1, 0, 1 + 9 + 4]  # one class token, 9 columns
    found = window.numbers(1)
    assert found['rest'] == pytest.approx(float(weights_of_head[0]), abs=1e-5)
    assert found['self'] == pytest.approx(
        float(weights_of_head[14]), abs=0.004 * float(weights_of_head.max())
    )
    assert found['alpha'] == pytest.approx(float(layer.head_alpha[1, 1, 4]), rel=1e-6)


def test_keys_choose_patch_layer_and_head(window, page):
    from selenium.webdriver.common.keys import Keys

    window.open(f'{page("two")}#layer=1&patch=2,3')
    before = window.pixels('attention')
    window.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    window.wait_for(row=3, column=5)
    assert window.pixels('attention') != before
    window.press(Keys.ARROW_UP, Keys.ARROW_LEFT)
    window.wait_for(row=2, column=4)
    window.press('l', 'h')
    window.wait_for(layer=2, head=1)
    assert window.run('return location.hash') == '#layer=2&patch=2,4&head=0'
    window.press('L', 'H')
    window.wait_for(layer=1, head=0)
    window.press(*[Keys.ARROW_LEFT] * 6)
    window.wait_for(column=0)
    spoken = window.run("return document.getElementById('spoken').textContent")
    assert spoken.startswith('Layer 1, patch row 2, column 0. vit_segment: looks on average')
    assert window.console() == []


def test_in_swin_an_arrow_goes_to_the_next_patch_of_the_layer(window, page):
    from selenium.webdriver.common.keys import Keys

    window.open(f'{page("swin")}#layer=3&patch=2,2')  # its patches are 2×2 of the first layer's
    window.press(Keys.ARROW_RIGHT)
    window.wait_for(row=2, column=4)
    assert window.console() == []


def test_the_address_restores_the_view(window, page):
    window.open(page('two'))
    window.click('similarity', 4, 7, (6, 9))
    window.wait_for(row=4, column=7)
    address, numbers = window.run('return location.href'), window.numbers(1)
    assert address.endswith('patch=4,7')
    window.open(address)
    assert (window.shown()['row'], window.shown()['column']) == (4, 7)
    assert window.numbers(1) == numbers
    window.open(f'{page("two")}#layer=99&patch=77,-5&head=x')
    assert window.shown() == dict(image=0, layer=3, head=0, row=5, column=0, hovered=None)


def test_the_pointer_shows_a_patch_before_it_is_chosen(window, page):
    window.open(f'{page("two")}#layer=1&patch=0,0')
    window.point('attention', 3, 4, (6, 9))
    window.wait_for(hovered=[3, 4], row=0, column=0)
    heading = window.run("return document.querySelector('h1').getBoundingClientRect().toJSON()")
    window.move(heading['left'] + 5, heading['top'] + 5)
    window.wait_for(hovered=None, row=0, column=0)


def test_pictures_stay_where_they_are_while_the_pointer_moves(window, page):
    window.open(f'{page("swin")}#layer=1&patch=0,0')
    top = """return document.querySelector('canvas.map').getBoundingClientRect().top"""
    window.point('attention', 0, 0, (12, 18))
    before = window.run(top)
    window.point('attention', 11, 17, (12, 18))
    window.wait_for(hovered=[11, 17])
    assert window.run(top) == before


@pytest.mark.parametrize('name', ['two', 'swin', 'jumbo'])
@pytest.mark.parametrize('width', [390, 320])
def test_narrow_windows_do_not_scroll_sideways(window, page, name, width):
    window.open(page(name), width=width, height=844)
    assert window.run('return document.documentElement.scrollWidth') <= width
    window.run("document.querySelector('details').open = true")
    window.wait(lambda: window.run("return document.querySelectorAll('#layers tr').length") > 4)
    assert window.run('return document.documentElement.scrollWidth') <= width


def test_light_and_dark(window, page):
    ground = 'return getComputedStyle(document.body).backgroundColor'
    window.open(page('two'), dark=True)
    dark = window.run(ground)
    window.open(page('two'))
    light = window.run(ground)
    assert light != dark
    window.driver.find_element('id', 'theme').click()
    assert window.run(ground) == dark


def test_every_picture_and_control_has_a_name(window, page):
    window.open(page('two'))
    script = """
        const named = (e) => e.getAttribute('aria-label') || (e.labels && e.labels.length)
          || e.textContent.trim();
        return [...document.querySelectorAll('canvas.map, button, input, select')]
          .filter((e) => !named(e)).map((e) => e.outerHTML)"""
    assert window.run(script) == []


def test_ellipses_follow_a_covariance(window, page):
    """Axes and angle of a correlated Gaussian are those of its covariance's eigenvectors."""
    window.open(page('two'))
    rows, columns, correlation = 4.0, 1.0, 0.6
    mixed = correlation * np.sqrt(rows * columns)
    found = window.run('return axesOf(arguments[0])', [rows, mixed, columns])
    values, vectors = np.linalg.eigh([[columns, mixed], [mixed, rows]])  # x right, y down
    assert [found['short'], found['long']] == pytest.approx(np.sqrt(values).tolist())
    assert abs(np.cos(found['angle']) * vectors[0, 1] + np.sin(found['angle']) * vectors[1, 1]) == (
        pytest.approx(1)
    )


def test_the_page_of_the_site(window, place):
    from locat_mm.analysis.page import refresh_page

    out = place / 'site.html'
    out.write_text(refresh_page(ROOT / 'docs' / '_site' / 'look_inside.html'), encoding='utf-8')
    window.open(out.as_uri())
    time.sleep(0.2)
    assert window.console() == []
    assert {'alpha', 'sigmaRows', 'class'} <= window.numbers(1).keys()
