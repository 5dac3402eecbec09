"""Read a config, walk through it, or find one in an installed package."""

import difflib
import inspect
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from .helpers import doing

__all__ = ['check_keys', 'config_path', 'image_channels', 'kind_of', 'load_config', 'walk']


@doing('reading the config')
def load_config(path: str, overrides: dict | None = None, work_dir: str | None = None) -> Config:
    """Read a config and apply the command line's overrides.

    Data loaders of mmpretrain's configs get ``default_collate``, as in mmpretrain's own tools.

    Args:
        path: the config file.
        overrides: dotted key -> value (``--cfg-options``).
        work_dir: where logs and checkpoints go; by default the config's own, or
            ``work_dirs/NAME``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a top-level key looks like a misspelt argument of mmengine's Runner, which
            would ignore it.
    """
    cfg = Config.fromfile(path)
    _drop_own_scope(cfg)
    if overrides:
        cfg.merge_from_dict(overrides)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(path).stem)
    check_keys(cfg, path)
    if cfg.get('default_scope') == 'mmpretrain':
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(name):
                cfg[name].setdefault('collate_fn', dict(type='default_collate'))
    return cfg


def check_keys(keys: Iterable[str], path: str) -> None:
    """Find top-level keys of a config that look like misspelt arguments of mmengine's Runner.

    Raises:
        ValueError: if there is one.
    """
    known = inspect.signature(Runner.__init__).parameters
    for key in keys:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if close and key not in known:
            raise ValueError(
                f'{path}: unknown key {key!r}, which would be ignored. Did you mean {close[0]!r}? '
                'A variable of your own needs a less similar name.'
            )


def walk(cfg: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """All dicts in a config, each with its dotted key; outer ones come before inner ones.

    Args:
        cfg: a config, or a part of one.
        key: of ``cfg`` itself; ``''`` for a whole config.
    """
    if isinstance(cfg, (dict, Config)):
        yield key, cfg
        children: Any = list(cfg.items())
    elif isinstance(cfg, (list, tuple)):
        children = enumerate(cfg)
    else:
        return
    for name, child in children:
        yield from walk(child, f'{key}.{name}' if key else str(name))


def kind_of(part: dict) -> str:
    """The name of the class that a config builds, without its scope; ``'None'`` without a type."""
    kind = part.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def image_channels(model: dict) -> int:
    """Channels of the images that a model takes: ``in_channels`` of its backbone, by default 3.

    Args:
        model: config of a model. Its backbone may be inside wrappers such as ``locat_mm.LocAt``,
            and may be one of timm (``in_chans``).
    """
    part = model.get('backbone')
    while isinstance(part, dict):
        for name in ('in_channels', 'in_chans'):
            if isinstance(part.get(name), int):
                return part[name]
        part = part.get('backbone')
    return 3


def config_path(name: str) -> str:
    """The file of an installed config, to inherit from or to train.

    For a config that another package's tool reads, without an import before::

        _base_ = __import__('locat_mm').config_path('locat/locatvit_tiny_ade20k.py')

    Args:
        name: path below this package's ``configs``, or ``PACKAGE::PATH`` for another package with
            the import name PACKAGE: ``'mmseg::_base_/datasets/ade20k.py'``.

    Raises:
        FileNotFoundError: if there is no such config, or the package has none.
        ModuleNotFoundError: if the package is not installed.
        ValueError: if the path is outside of the configs.
    """
    package, _, path = name.rpartition('::')
    folder = _configs_of(package or 'locat_mm')
    if Path(path).is_absolute() or '..' in Path(path).parts:
        raise ValueError(f'{name!r} leads out of {folder}: give a path below it')
    if not (folder / path).is_file():
        known = [file.relative_to(folder).as_posix() for file in folder.rglob('*.py')]
        close = difflib.get_close_matches(path, known)
        hint = f'Did you mean {" or ".join(map(repr, close))}?' if close else f'See {folder}.'
        raise FileNotFoundError(f'there is no config {name!r}. {hint}')
    return str(folder / path)


def _drop_own_scope(cfg: Config) -> None:
    """Remove, in place, the scope that mmengine adds to the settings of a ``locat_mm::`` base.

    With it, mmengine would search types only in the registries of locat_mm, which do not have
    the types of mmseg and mmpretrain.
    """
    for _, part in walk(cfg):
        if part.get('_scope_') == 'locat_mm':
            part.pop('_scope_')


def _configs_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f'no package {package!r} is installed')
    for location in spec.submodule_search_locations or ():
        folder = Path(location) / '.mim' / 'configs'
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f'{package!r} ({spec.origin}) brings no configs: they come into its folder .mim when it is '
        'installed, by pip install PACKAGE or pip install --editable CLONE'
    )
