"""Links and paths in the documentation exist."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import DictAction

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
    *sorted((ROOT / 'docs').glob('*.md')),
]
#: [text](target) and ![text](target), without web addresses and anchors of the same page
LINK = re.compile(r'\]\((?!https?:|#)([^)#\s]+)(?:#([^)\s]+))?\)')
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)
PATH = re.compile(r'(?<![\w/.$-])(?:tools|configs|benchmarks|tests)/[\w/-]+\.(?:py|sh)')
#: A file name in capitals stands for any name: configs/in_context/CONFIG.py.
PLACEHOLDER = re.compile(r'[A-Z]{3}')


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request) -> Path:
    return request.param


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def commands(page: Path) -> list[str]:
    """Blocks without a language, or of bash."""
    return [text for language, text in BLOCK.findall(page.read_text()) if language in ('', 'bash')]


def test_relative_links_exist(page):
    for target, anchor in LINK.findall(page.read_text()):
        path = page.parent / target
        assert path.exists(), f'{page.name} links to {target}'
        assert not anchor or anchor in anchors(path), f'{page.name} links to {target}#{anchor}'


def test_paths_in_commands_exist(page):
    for block in commands(page):
        for path in PATH.findall(block):
            assert PLACEHOLDER.search(path) or (ROOT / path).exists(), f'{page.name} names {path}'


def test_settings_are_read_as_they_are_meant(page):
    """mmengine reads ``key="[dict(type='X')]"`` as a list of strings."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    for text in re.findall(r'--cfg-options(?: +[\w.]+=[^\s`]+)+', page.read_text()):
        for value in parser.parse_args(shlex.split(text)).cfg_options.values():
            assert 'dict(' not in repr(value) and '{' not in repr(value), text


def test_every_page_is_linked():
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target, _ in LINK.findall(page.read_text())
        if page.resolve() != (page.parent / target).resolve()
    }
    assert set(PAGES) - {ROOT / 'README.md'} <= linked


def test_the_patterns_find_links_and_paths():
    # Without this, an empty result of a pattern would pass every test above.
    readme = (ROOT / 'README.md').read_text()
    assert ('docs/design.md', '') in LINK.findall(readme)
    paths = {path for block in commands(ROOT / 'README.md') for path in PATH.findall(block)}
    assert {'tools/infer.py', 'configs/locat/locatvit_tiny_ade20k.py'} <= paths
