"""What stands between a config and mmengine's Runner."""

from .checkpointing import SafeCheckpointHook, find_resumable
from .exact_resume import ExactResumeHook
from .hooks import CheckpointFitHook
from .launch import build_runner, load_config
from .optimizers import SegmentorOptimWrapperConstructor

__all__ = [
    'CheckpointFitHook',
    'ExactResumeHook',
    'SafeCheckpointHook',
    'SegmentorOptimWrapperConstructor',
    'build_runner',
    'find_resumable',
    'load_config',
]
