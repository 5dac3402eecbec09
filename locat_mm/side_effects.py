"""Everything that importing ``locat_mm`` changes outside of it, in one place.

The other effects are registrations: of classes with mmengine (:mod:`locat_mm.registry`) and of
model names with timm (:mod:`locat_mm.models.timm_models`) and with mmpretrain
(:mod:`locat_mm.models.mmpretrain_names`).
"""

import logging

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import register_backend
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.utils import is_installed

from .checkpoint.reading import allow_plain_data
from .checkpoint.sources import load_from_locat_mm
from .checkpoint.writing import AtomicBackend
from .models import mmpretrain_names

__all__ = ['apply_side_effects']


def apply_side_effects() -> None:
    """Register with mmengine, torch and logging; a second call changes nothing."""
    # mmengine reads 'locat_mm::...'. It looks for a distribution of the name given here, then for a
    # module; for an editable distribution, mmengine 0.10.7 takes the wrong folder.
    MODULE2PACKAGE.setdefault('locat_mm', 'locat_mm.config')
    # onedl-mmsegmentation is mmsegmentation under another name, which mmengine does not find.
    if not is_installed('mmsegmentation') and is_installed('mmseg'):
        MODULE2PACKAGE['mmseg'] = 'mmseg'
    # SafeCheckpointHook names its file backend in the arguments of mmengine's save functions.
    register_backend('locat_mm_atomic', AtomicBackend, force=True)
    # mmengine's schemes are regular expressions, matched at the start. URLs keep mmengine's loader.
    CheckpointLoader.register_scheme(
        prefixes=['hf-hub:', 'mmpretrain:', 'timm:', r'(?!\S+://).+\.safetensors$'],
        loader=load_from_locat_mm,
        force=True,
    )
    mmpretrain_names.register()
    # torch's weights-only unpickler reads the plain data in mmengine's checkpoints.
    allow_plain_data()
    # locat_mm.ops does not import OpenMMLab and uses Python's logging.
    logger = logging.getLogger('locat_mm')
    if not any(isinstance(handler, _ToMMEngine) for handler in logger.handlers):
        logger.addHandler(_ToMMEngine())
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _ToMMEngine(logging.Handler):
    """Passes records to mmengine's current logger."""

    def emit(self, record: logging.LogRecord) -> None:
        print_log(record.getMessage(), 'current', record.levelno)
