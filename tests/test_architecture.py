"""Data flows one way: each folder of the package imports only from folders below it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / 'locat_mm'
#: From the ground up. A folder imports from those before it, and from itself.
ORDER = (
    *('version', 'distribution', 'helpers', 'registry', 'config', 'mmengine_internals'),
    *('ops', 'layers', 'checkpoint', 'models', 'datasets', 'evaluation', 'analysis'),
    *('deployment', 'engine', 'cli', 'side_effects', '__init__', '__main__'),
)
#: Folders that know nothing of each other, whatever their order above.
APART = [('evaluation', 'analysis'), ('datasets', 'models')]
OPENMMLAB = ('mmengine', 'mmcv', 'mmseg', 'mmpretrain')


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file."""
    files = [f for f in PACKAGE.rglob('*.py') if '.mim' not in f.parts]
    return {'.'.join(f.relative_to(PACKAGE).with_suffix('').parts): f for f in files}


MODULES = modules()


def imports(name: str) -> set[str]:
    """All modules that a module names in imports, inside of functions too, as absolute names."""
    found = set()
    package = ['locat_mm', *name.split('.')[:-1]]
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = '.'.join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f'{module}.{alias.name}'
                is_module = _module_of(full) is not None
                found.add(full if is_module else module)
    return found


def _module_of(name: str) -> str | None:
    """The module or package of ours with an absolute name."""
    short = name.removeprefix('locat_mm.')
    return next((m for m in (short, f'{short}.__init__') if m in MODULES), None)


def own_imports(name: str) -> set[str]:
    """The modules of the package that a module imports."""
    own = {_module_of(i) for i in imports(name) if i.startswith('locat_mm.')}
    return {m for m in own if m is not None} - {name}


def room(name: str) -> str:
    return name.partition('.')[0]


def test_every_folder_has_its_place():
    assert {room(name) for name in MODULES} == set(ORDER)


@pytest.mark.parametrize('name', sorted(MODULES))
def test_no_import_runs_up(name):
    allowed = ORDER[: ORDER.index(room(name)) + 1]
    up = {m for m in own_imports(name) if room(m) not in allowed}
    assert not up
    for pair in APART:
        if room(name) in pair:
            other = pair[1 - pair.index(room(name))]
            assert not {m for m in own_imports(name) if room(m) == other}


def test_no_circle():
    # The face of a package (its __init__) names all its modules; they do not import it.
    TopologicalSorter({name: own_imports(name) for name in MODULES}).prepare()


@pytest.mark.parametrize('name', [n for n in sorted(MODULES) if room(n) == 'ops'])
def test_tensor_functions_know_no_openmmlab(name):
    assert not {i for i in imports(name) if i.partition('.')[0] in OPENMMLAB}


@pytest.mark.parametrize('name', sorted(MODULES))
def test_a_reader_can_hold_a_module(name):
    lines = len(MODULES[name].read_text(encoding='utf-8').splitlines())
    assert lines <= (600 if name.endswith('_kernels') else 400)
