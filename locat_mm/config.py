"""Installed configs by name: ours and those of other OpenMMLab packages."""

import difflib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

__all__ = ['config_path', 'drop_own_scope']

# Lets mmengine read 'locat_mm::...'. It looks for a distribution of the name given here, then for
# a module; of an editable distribution, mmengine 0.10.7 takes the wrong folder.
MODULE2PACKAGE.setdefault('locat_mm', __name__)


def config_path(name: str) -> str:
    """The file of an installed config, to inherit from or to train.

    In a config that a tool of any package reads, with no import before::

        _base_ = __import__('locat_mm').config_path('locat/locatvit_tiny_ade20k.py')

    Args:
        name: path below our ``configs``, or ``PACKAGE::PATH`` for those of the package that is
            imported as PACKAGE: ``'mmseg::_base_/datasets/ade20k.py'``.

    Raises:
        FileNotFoundError: if there is no such config, or the package brings none.
        ModuleNotFoundError: if the package is not installed.
        ValueError: if the path leads out of the configs.
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


def drop_own_scope(cfg: Any) -> None:
    """Undo, in place, what mmengine does to the settings of a ``locat_mm::`` base.

    It has their types looked up in the registries of locat_mm, where those of the tasks, mmseg's
    and mmpretrain's, are not found.
    """
    if isinstance(cfg, (dict, Config)):
        if cfg.get('_scope_') == 'locat_mm':
            cfg.pop('_scope_')
        for value in cfg.values():
            drop_own_scope(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            drop_own_scope(value)


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
