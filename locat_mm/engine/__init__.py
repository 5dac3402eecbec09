"""What stands between a config and mmengine's Runner."""

from .checkpointing import SafeCheckpointHook, find_resumable
from .data_guard import DataGuardHook
from .determinism import LenientEvaluationHook, make_deterministic
from .dino_hooks import DINOHook
from .exact_resume import ExactResumeHook
from .hooks import CheckpointFitHook
from .launch import build_runner, load_config
from .locality_hook import LocalityHook
from .non_finite import NonFiniteHook
from .optimizers import SegmentorOptimWrapperConstructor

__all__ = [
    'CheckpointFitHook',
    'DINOHook',
    'DataGuardHook',
    'ExactResumeHook',
    'LenientEvaluationHook',
    'LocalityHook',
    'NonFiniteHook',
    'SafeCheckpointHook',
    'SegmentorOptimWrapperConstructor',
    'build_runner',
    'find_resumable',
    'load_config',
    'make_deterministic',
]
