"""Time a page of inspect_locat.py --html in a headless Chromium: first paint, clicks, layers.

  python benchmarks/page.py PAGE.html [PAGE.html ...]

It needs what `make test-browser` needs: Chromium, its driver and selenium. A click is timed from
its event to the end of the drawing, in a layer that has been decoded; a layer from the change of
the slider, with its decoding.
"""

import argparse
import shutil
from pathlib import Path
from statistics import median

TIME = """
const [script, done] = arguments;
const start = performance.now();
const before = started;
eval(script);
const check = () => (started > before && document.body.dataset.shown === JSON.stringify(
  { ...state, hovered }) ? done(performance.now() - start) : setTimeout(check, 0));
check();
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('pages', nargs='+', type=Path)
    parser.add_argument('--clicks', type=int, default=20)
    args = parser.parse_args(argv)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium') or ''
    for argument in ('headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'window-size=1280,900'):
        options.add_argument(f'--{argument}')
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    driver.set_script_timeout(60)
    for page in args.pages:
        driver.get(page.resolve().as_uri())
        driver.execute_async_script(
            'const wait = () => document.body.dataset.shown ? arguments[0]() : setTimeout(wait, 5);'
            'wait();'
        )
        paint = driver.execute_script(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
        clicks = [
            driver.execute_async_script(TIME, f'choose({{row: {n % 7}, column: {n % 5 + 1}}})')
            for n in range(args.clicks)
        ]
        count = driver.execute_script('return countLayers()')
        layers = [
            driver.execute_async_script(TIME, f'choose({{layer: {n}}})')
            for n in range(count)
            if n != count // 2
        ]
        print(
            f'{page.name}: {page.stat().st_size / 1e6:.1f} MB, first paint {paint:.0f} ms, '
            f'click {median(clicks):.0f} ms (slowest {max(clicks):.0f}), '
            f'layer {median(layers):.0f} ms (slowest {max(layers):.0f})',
            flush=True,
        )
    driver.quit()


if __name__ == '__main__':
    main()
