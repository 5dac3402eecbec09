"""A headless Chromium, through selenium."""

import base64
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HOW_TO = (
    'no Chromium with its driver is installed. Debian and Ubuntu: apt-get install chromium '
    'chromium-driver. Elsewhere: put chromium (or google-chrome) and chromedriver of the same '
    'version on the PATH.'
)
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')


def find_browser() -> tuple[str, str] | None:
    """The browser and its driver, if both are installed."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which('chromedriver')
    return (browser, driver) if browser and driver else None


class Window:
    """A tab of the browser, with what these tests do in it."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def open(self, address: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open an address, and wait until the page has drawn itself."""
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        self.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[scheme]))
        self.driver.get('about:blank')  # a new anchor alone would not load the page again
        self.console()  # what other pages have said
        self.driver.get(address)
        self.wait(lambda: self.run('return document.body.dataset.shown'))

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition, seconds: float = 30):
        """Wait until a condition gives something true; return it."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f'waited {seconds} s; console: {self.console()}'
            time.sleep(0.05)
        return found

    def shown(self) -> dict:
        """Image, layer, head, row and column that are drawn."""
        return json.loads(self.run('return document.body.dataset.shown'))

    def wait_for(self, **expected) -> None:
        """Wait until a patch, layer or head is drawn."""
        deadline = time.monotonic() + 30
        while not expected.items() <= (shown := self.shown()).items():
            assert time.monotonic() < deadline, f'{shown} is drawn; console: {self.console()}'
            time.sleep(0.05)

    def numbers(self, model: int) -> dict[str, float]:
        """The values in the table of the chosen patch."""
        script = (
            "return [...document.querySelectorAll('#numbers td[data-model=\"' + arguments[0] + "
            "'\"]')].map((cell) => [cell.dataset.key, cell.dataset.value])"
        )
        return {key: float(value) for key, value in self.run(script, model)}

    def console(self) -> list[str]:
        """Errors and warnings since the last call."""
        return [entry['message'] for entry in self.driver.get_log('browser')]

    def move(self, x: float, y: float) -> None:
        """Move the pointer to a place in the window."""
        self._mouse('mouseMoved', x, y)

    def point(self, kind: str, row: int, column: int, grid: tuple[int, int]) -> tuple[float, float]:
        """Move the pointer to the centre of a patch in the first picture of a panel."""
        canvas = self.driver.find_element('css selector', f'[data-kind="{kind}"] canvas.map')
        self.run('arguments[0].scrollIntoView({block: "center"})', canvas)
        box = self.run('return arguments[0].getBoundingClientRect().toJSON()', canvas)
        x = box['left'] + (column + 0.5) / grid[1] * box['width']
        y = box['top'] + (row + 0.5) / grid[0] * box['height']
        self.move(x, y)
        return x, y

    def click(self, kind: str, row: int, column: int, grid: tuple[int, int]) -> None:
        """Click the centre of a patch in the first picture of a panel."""
        x, y = self.point(kind, row, column, grid)
        for event in ('mousePressed', 'mouseReleased'):
            self._mouse(event, x, y, button='left', clickCount=1)

    def _mouse(self, event: str, x: float, y: float, **more) -> None:
        self.driver.execute_cdp_cmd('Input.dispatchMouseEvent', dict(type=event, x=x, y=y, **more))

    def press(self, *keys: str) -> None:
        """Press keys on the first picture of attention."""
        canvas = self.driver.find_element('css selector', '[data-kind="attention"] canvas.map')
        canvas.send_keys(*keys)

    def pixels(self, kind: str) -> bytes:
        """What the first canvas of a panel shows, as PNG."""
        script = (
            "return document.querySelector('[data-kind=\"' + arguments[0] + '\"] canvas.map')"
            ".toDataURL().split(',')[1]"
        )
        return base64.b64decode(self.run(script, kind))


@pytest.fixture(scope='session')
def window() -> Iterator[Window]:
    found = find_browser()
    if found is None:
        pytest.exit(f'make test-browser: {HOW_TO}', returncode=1)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for argument in ('headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'hide-scrollbars'):
        options.add_argument(f'--{argument}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(found[1]))
    yield Window(driver)
    driver.quit()


@pytest.fixture(scope='session')
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('browser')


if __name__ == '__main__':
    if find_browser() is None:
        sys.exit(f'make test-browser: {HOW_TO}')
