"""The parts of the package in order: a part imports lower parts only, and nothing in a cycle."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / 'locat_mm'
#: From the lowest to the highest. A part may import itself and the parts of lower layers. Parts in
#: the same layer do not import each other.
LAYERS = (
    ('version', 'helpers', 'distribution', 'ops'),
    ('mmengine_internals', 'registry', 'config'),
    ('layers',),
    ('checkpoint',),
    ('models',),
    ('datasets',),
    ('analysis', 'evaluation', 'deployment'),
    ('engine',),
    ('cli',),
    # What `import locat_mm` and `python -m locat_mm` do.
    ('side_effects',),
    ('locat_mm',),
    ('__main__',),
)
HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}
OPENMMLAB = {'mmengine', 'mmcv', 'mmseg', 'mmpretrain', 'mmdet'}
MOST_LINES, MOST_LINES_OF_KERNELS = 400, 600


def name_of(path: Path) -> str:
    """``locat_mm.ops`` for ``locat_mm/ops/__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob('*.py')) if '.mim' not in path.parts}


@cache
def imports_of(module: str) -> frozenset[str]:
    """All modules that a module imports, also those that a function imports."""
    is_package = FILES[module].name == '__init__.py'
    tree = ast.parse(FILES[module].read_text())
    return frozenset(
        name for node in ast.walk(tree) for name in imported_by(node, module, is_package)
    )


def imported_by(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if not isinstance(node, ast.ImportFrom):
        return
    base = node.module or ''
    if node.level:
        parts = module.split('.')
        parts = parts[: len(parts) - node.level + is_package]
        base = '.'.join([*parts, *base.split('.')] if base else parts)
    for alias in node.names:
        inner = f'{base}.{alias.name}'
        yield inner if inner in FILES else base


def part_of(module: str) -> str:
    return module.split('.')[1] if '.' in module else module


def inside(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    return {name for name in imports_of(module) if name in FILES}


def test_every_part_has_a_layer():
    assert {part_of(module) for module in FILES} == HEIGHT.keys()


@pytest.mark.parametrize('module', FILES)
def test_imports_are_of_lower_parts(module):
    part = part_of(module)
    wrong = {
        name
        for name in inside(module)
        if part_of(name) != part and HEIGHT[part_of(name)] >= HEIGHT[part]
    }
    assert not wrong, f'{part} may import lower parts only'


def test_no_cycle():
    """Neither inside a folder nor through imports in functions."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, ' -> '.join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(inside(module)):
                visit(name, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())
    assert done == FILES.keys()


def test_ops_need_no_openmmlab():
    """The modules of the package that they import need none either."""
    seen: set[str] = set()
    waiting = {module for module in FILES if part_of(module) == 'ops'}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        others = {name.partition('.')[0] for name in imports_of(module)}
        assert not others & OPENMMLAB, module
        waiting |= inside(module) - seen
    assert len(seen) > 10


def test_only_tools_import_the_command_line():
    users = {module for module in FILES if any(part_of(name) == 'cli' for name in inside(module))}
    assert {part_of(module) for module in users} <= {'cli'}


@pytest.mark.parametrize('module', FILES)
def test_no_file_is_long(module):
    path = FILES[module]
    most = MOST_LINES_OF_KERNELS if path.name.endswith('_kernels.py') else MOST_LINES
    assert len(path.read_text().splitlines()) <= most


@pytest.mark.parametrize(
    'code, names',
    [
        ('import a.b, c', {'a.b', 'c'}),
        ('from . import config', {'locat_mm.config'}),
        ('from .ops import BACKENDS', {'locat_mm.ops'}),
        ('def f():\n    from .ops import geometry', {'locat_mm.ops.geometry'}),
    ],
)
def test_imports_are_found(code, names):
    found = (
        name
        for node in ast.walk(ast.parse(code))
        for name in imported_by(node, 'locat_mm.helpers', False)
    )
    assert set(found) == names
