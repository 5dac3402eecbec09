"""What an installation brings: configs, tools and the model index, found by name from anywhere."""

import os
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from mmengine.config import Config
from modelindex.load_model_index import load
from packaging.requirements import Requirement

from locat_mm import __version__
from locat_mm.config import config_path, load_config, walk

LEAF = 'locat/locatvit_tiny_ade20k.py'
MIM = ('configs', 'tools', 'model-index.yml')
PIP = (sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check')
OFFLINE = ('--no-deps', '--no-build-isolation')


def run(*command: object, cwd: Path, packages: Path | None = None) -> str:
    """The output of a command that finds locat_mm in ``packages``."""
    env = {**os.environ, 'PYTHONPATH': str(packages or ''), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope='module')
def clone(root, tmp_path_factory) -> Path:
    """What git holds, uncommitted files included."""
    clone = tmp_path_factory.mktemp('clone')
    listed = run('git', 'ls-files', '--cached', '--others', '--exclude-standard', cwd=root)
    names = [name for name in listed.splitlines() if (root / name).exists()]
    run('cp', '--parents', '--preserve=mode', '-t', clone, *names, cwd=root)
    return clone


@pytest.fixture(scope='module')
def wheel(clone) -> Path:
    before = files_of(clone)
    run(*PIP, 'wheel', *OFFLINE, '--wheel-dir', 'dist', clone, cwd=clone)
    made = {name.split('/')[0] for name in files_of(clone) - before}
    assert made == {'build', 'dist', 'locat_mm.egg-info'}, 'git ignores these and nothing else'
    (wheel,) = (clone / 'dist').glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp('installed')
    run(*PIP, 'install', '--no-deps', '--target', target, wheel, cwd=target)
    return target


@pytest.fixture(scope='module')
def metadata(installed) -> Message:
    return Parser().parsestr((installed / f'locat_mm-{__version__}.dist-info/METADATA').read_text())


def test_wheel_holds_configs_tools_and_index(wheel, clone):
    shipped = {name for name in files_of(clone) if name.split('/')[0] in MIM}
    with zipfile.ZipFile(wheel) as archive:
        held = {
            info.filename.removeprefix('locat_mm/.mim/'): (archive.read(info), info)
            for info in archive.infolist()
            if info.filename.startswith('locat_mm/.mim/')
        }
    assert held.keys() == shipped
    for name, (content, info) in held.items():
        assert content == (clone / name).read_bytes(), name
        assert bool(info.external_attr >> 16 & 0o100) == name.endswith('.sh'), name


def test_wheel_holds_the_parts_of_the_page(wheel, root):
    parts = {p.name for p in (root / 'locat_mm/analysis/page').iterdir() if p.is_file()}
    assert {'page.html', 'page.css', 'main.js'} <= parts
    assert {f'locat_mm/analysis/page/{name}' for name in parts} <= names_in(wheel)


def test_installed_scripts_can_be_executed(installed):
    scripts = list((installed / 'locat_mm/.mim/tools').glob('*.sh'))
    assert len(scripts) == 4
    assert all(os.access(script, os.X_OK) for script in scripts)


def test_sdist_builds_the_same_wheel(clone, wheel, tmp_path):
    run(sys.executable, 'setup.py', '--quiet', 'sdist', '--dist-dir', tmp_path, cwd=clone)
    (sdist,) = tmp_path.glob('*.tar.gz')
    run(*PIP, 'wheel', *OFFLINE, '--wheel-dir', tmp_path, sdist, cwd=tmp_path)
    assert names_in(tmp_path / wheel.name) == names_in(wheel)


def test_editable_installation_links_to_the_clone(clone, tmp_path):
    run(*PIP, 'install', *OFFLINE, '--target', tmp_path, '--editable', clone, cwd=tmp_path)
    for name in MIM:
        link = clone / 'locat_mm/.mim' / name
        assert link.is_symlink() and link.resolve() == clone.resolve() / name


def test_metadata(metadata, root):
    assert metadata['Name'] == 'locat_mm'
    assert metadata['Version'] == __version__
    assert metadata['Requires-Python'] == '>=3.10'
    assert set(metadata.get_all('Provides-Extra')) == {
        *('onedl', 'openmmlab', 'demo', 'deploy', 'app', 'satellite', 'medical'),
    }


@pytest.mark.parametrize(
    ('extra', 'pins'),
    [
        ('onedl', 'requirements.txt'),
        ('openmmlab', 'requirements-openmmlab.txt'),
        ('demo', 'requirements.txt'),
        ('deploy', 'requirements-dev.txt'),
        ('app', 'requirements-browser.txt'),
        ('satellite', 'requirements-dev.txt'),
        ('medical', 'requirements-dev.txt'),
    ],
)
def test_extras_admit_the_pinned_stack(metadata, root, extra, pins):
    lines = [line.partition('#')[0].strip() for line in (root / pins).read_text().splitlines()]
    pinned = [Requirement(line) for line in lines if '==' in line]
    needed = [Requirement(line) for line in metadata.get_all('Requires-Dist')]
    needed = [one for one in needed if one.marker and one.marker.evaluate({'extra': extra})]
    counts = {'onedl': 4, 'openmmlab': 7, 'demo': 3, 'deploy': 3}
    assert len(needed) == counts.get(extra, 1)
    for one in needed:
        versions = [re.sub('.*==', '', str(p.specifier)) for p in pinned if p.name == one.name]
        assert versions and all(one.specifier.contains(version) for version in versions), one


EVERY_FORM = f"""
import contextlib, io, runpy, sys
from pathlib import Path
import mmseg
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope

configs = Path(sys.argv[1]) / 'locat_mm/.mim/configs'


def printed(run, name, *arguments):
    sys.argv, out = [name, *arguments], io.StringIO()
    with contextlib.redirect_stdout(out):
        run(name, run_name='__main__')
    return out.getvalue()


# A stock tool, which does not import locat_mm.
tool = Path(mmseg.__file__).parent / '.mim/tools/misc/print_config.py'
assert 'locat_mm' not in sys.modules
assert "type='locat_mm.LocAtViT'" in printed(runpy.run_path, str(tool), 'by_path.py')

import locat_mm
from locat_mm.config import load_config
assert Path(locat_mm.__file__).parent == configs.parents[1]

leaf = Config.fromfile(configs / '{LEAF}')
assert get_config('locat_mm::{LEAF}').to_dict() == leaf.to_dict()
leaf.model.backbone.init_cfg = None
assert Config.fromfile('by_path.py').to_dict() == leaf.to_dict()

# mmengine marks every part of such a base with _scope_; our tools take the marks off.
assert Config.fromfile('by_name.py').model._scope_ == 'locat_mm'
by_name = load_config('by_name.py', work_dir='.')
by_name.pop('work_dir')
assert by_name.to_dict() == leaf.to_dict()
init_default_scope(by_name.default_scope)
assert type(MODELS.build(by_name.model)).__name__ == 'EncoderDecoder'

assert printed(runpy.run_module, 'locat_mm', '{LEAF}') == f'{{configs}}/{LEAF}\\n'
assert printed(runpy.run_module, 'locat_mm') == f'{{configs.parent}}\\n'

# The rest are the same files as in the clone, where other tests read them all.
folders = {{path.parent: path for path in configs.rglob('*.py') if '_base_' not in path.parts}}
print(len([Config.fromfile(path) for path in folders.values()]))
"""


def test_installed_configs_by_name(installed, root, tmp_path):
    change = 'model = dict(backbone=dict(init_cfg=None))\n'
    by_path = f"_base_ = __import__('locat_mm').config_path('{LEAF}')\n{change}"
    (tmp_path / 'by_path.py').write_text(by_path)
    (tmp_path / 'by_name.py').write_text(f"_base_ = 'locat_mm::{LEAF}'\n{change}")
    (tmp_path / 'check.py').write_text(EVERY_FORM)
    count = run(sys.executable, 'check.py', installed, cwd=tmp_path, packages=installed)
    leaves = [path for path in (root / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert int(count) == len({path.parent for path in leaves}) > 5


@pytest.mark.parametrize(
    ('package', 'base'),
    [('mmseg', '_base_/datasets/ade20k.py'), ('mmpretrain', '_base_/datasets/imagenet_bs64.py')],
)
def test_bases_of_other_packages(tmp_path, package, base):
    path = config_path(f'{package}::{base}')
    assert path.endswith(f'{package}/.mim/configs/{base}')
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = [__import__('locat_mm').config_path('{package}::{base}')]")
    assert Config.fromfile(child).to_dict() == Config.fromfile(path).to_dict()
    child.write_text(f"_base_ = '{package}::{base}'")
    named = load_config(str(child), work_dir='x')
    for _, part in walk(named):
        part.pop('_scope_', None)
    assert named.to_dict() == load_config(path, work_dir='x').to_dict()


@pytest.mark.parametrize(
    ('name', 'error', 'said'),
    [
        ('locat/locatvit_tinny_ade20k.py', FileNotFoundError, "Did you mean '.*locatvit_tiny_ade"),
        ('locat/locatvit_tiny_ade20k', FileNotFoundError, f"Did you mean '.*{LEAF}'"),
        ('mmseg::_base_/datasets/ade2k.py', FileNotFoundError, 'datasets/ade20k.py'),
        ('no/such/thing.md', FileNotFoundError, 'See .*configs'),
        ('timm::x.py', FileNotFoundError, "'timm' .* brings no configs"),
        ('nothing_here::x.py', ModuleNotFoundError, "no package 'nothing_here' is installed"),
        ('../tools/train.py', ValueError, 'leads out of'),
        ('/configs/x.py', ValueError, 'leads out of'),
    ],
)
def test_names_that_lead_nowhere(name, error, said):
    with pytest.raises(error, match=said):
        config_path(name)


def test_model_index_is_complete(root):
    index = load(str(root / 'model-index.yml'))
    assert index.check(silent=True) == []
    leaves = {path.stem for path in (root / 'configs/locat').glob('*.py')}
    assert {model.name for model in index.models} == leaves
    collections = {collection.name for collection in index.collections}
    assert collections == {model.in_collection for model in index.models}
    for collection in index.collections:
        assert collection.paper['Title'] == 'Locality-Attending Vision Transformer'
        assert collection.paper['URL'] == 'https://arxiv.org/abs/2603.04892'
    for model in index.models:
        assert model.config == f'configs/locat/{model.name}.py'
        assert model.weights is None, 'no checkpoint of ours is published'


def test_model_index_gives_the_papers_numbers_as_such(root):
    text = (root / 'docs/model_zoo.md').read_text()
    pattern = r'^\| \[.*?\]\(\.\./configs/locat/(\w+)_imagenet\.py\)((?: \| [\d.]+){4})'
    expected = {
        f'{model}_{task}': float(number)
        for model, row in re.findall(pattern, text, re.MULTILINE)
        for task, number in zip(
            ('ade20k', 'pcontext', 'cocostuff', 'imagenet'), row.split(' | ')[1:], strict=True
        )
    }
    assert len(expected) == 20
    given = {}
    for model in load(str(root / 'model-index.yml')).models:
        for result in model.results or ():
            ((metric, given[model.name]),) = result.metrics.items()
            assert metric in ('Paper mIoU', 'Paper top-1')
    assert given == expected
