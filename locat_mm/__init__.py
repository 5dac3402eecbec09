"""LocAt (Locality-Attending Vision Transformer, ICLR 2026) for OpenMMLab.

Importing registers everything: name it in a config as ``custom_imports=dict(imports=['locat_mm'])``
and use ``type='LocAtViT'``, or use ``type='locat_mm.LocAtViT'`` with no import at all.
"""

from .distribution import check_openmmlab

check_openmmlab()

from . import datasets, engine, evaluation, layers, models  # noqa: E402  (needs OpenMMLab, checked above)
from .checkpoint import load_official  # noqa: E402
from .config import config_path  # noqa: E402
from .layers import attach, detach  # noqa: E402
from .side_effects import apply_side_effects  # noqa: E402
from .version import __version__  # noqa: E402

apply_side_effects()

__all__ = [
    '__version__',
    'attach',
    'config_path',
    'datasets',
    'detach',
    'engine',
    'evaluation',
    'layers',
    'load_official',
    'models',
]
