"""LocAt classifiers by name in mmpretrain: ``mmpretrain.get_model('locatvit-tiny_in1k')``."""

from pathlib import Path

import mmpretrain
from modelindex.load_model_index import load

__all__ = ['find_root', 'register']

_INDEX = 'configs/locat/classifiers.yml'


def register() -> None:
    """Add the classifiers of this package to mmpretrain's hub; a second call changes nothing.

    Raises:
        FileNotFoundError: as :func:`find_root`.
    """
    root = find_root(Path(__file__).parents[1])
    hub = mmpretrain.apis.model.ModelHub
    if not all(hub.has(model.name) for model in load(str(root / _INDEX)).models):
        hub.register_model_index(root / _INDEX, config_prefix=root)


def find_root(package: Path) -> Path:
    """The folder that holds ``configs``: ``.mim`` of an installation, or the clone itself.

    Args:
        package: folder of the package locat_mm.

    Raises:
        FileNotFoundError: if neither has the index of the classifiers.
    """
    for folder in (package / '.mim', package.parent):
        if (folder / _INDEX).is_file():
            return folder
    raise FileNotFoundError(f'there is no {_INDEX} in {package / ".mim"} or {package.parent}')
