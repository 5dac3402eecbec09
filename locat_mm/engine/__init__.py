"""What stands between a config and mmengine's Runner."""

from .hooks import CheckpointFitHook
from .launch import build_runner, load_config
from .optimizers import SegmentorOptimWrapperConstructor

__all__ = [
    'CheckpointFitHook',
    'SegmentorOptimWrapperConstructor',
    'build_runner',
    'load_config',
]
