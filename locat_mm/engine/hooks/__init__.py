"""Hooks of mmengine's Runner, one a file."""

from .checkpoint_fit import CheckpointFitHook
from .data_guard import DataGuardHook
from .dino import DINOHook
from .exact_resume import ExactResumeHook
from .locality import LocalityHook
from .non_finite import NonFiniteHook
from .safe_checkpoint import SafeCheckpointHook

__all__ = [
    'CheckpointFitHook',
    'DINOHook',
    'DataGuardHook',
    'ExactResumeHook',
    'LocalityHook',
    'NonFiniteHook',
    'SafeCheckpointHook',
]
