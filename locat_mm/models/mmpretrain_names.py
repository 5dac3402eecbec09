"""LocAt classifiers by name in mmpretrain: ``mmpretrain.get_model('locatvit-tiny_in1k')``."""

from pathlib import Path

import mmpretrain
from modelindex.load_model_index import load

__all__ = ['register']

_INDEX = 'configs/locat/classifiers.yml'


def register() -> None:
    """Add the classifiers of this package to mmpretrain's hub; a second call changes nothing.

    The configs come from the installation (``locat_mm/.mim``), or from the clone that is imported.

    Raises:
        FileNotFoundError: if neither has the index of the classifiers.
    """
    package = Path(__file__).parents[1]
    folders = [package / '.mim', package.parent]
    root = next((folder for folder in folders if (folder / _INDEX).is_file()), None)
    if root is None:
        raise FileNotFoundError(f'there is no {_INDEX} in {folders[0]} or {folders[1]}')
    hub = mmpretrain.apis.model.ModelHub
    if not all(hub.has(model.name) for model in load(str(root / _INDEX)).models):
        hub.register_model_index(root / _INDEX, config_prefix=root)
