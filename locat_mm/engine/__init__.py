"""What mmengine runs: a Runner from a config, its hooks, its optimizers."""

from .determinism import LenientEvaluationHook, make_deterministic
from .hooks import (
    CheckpointFitHook,
    DataGuardHook,
    DINOHook,
    ExactResumeHook,
    LocalityHook,
    NonFiniteHook,
    SafeCheckpointHook,
)
from .launch import build_runner
from .optimizers import LayerDecayOptimWrapperConstructor

__all__ = [
    'CheckpointFitHook',
    'DINOHook',
    'DataGuardHook',
    'ExactResumeHook',
    'LenientEvaluationHook',
    'LocalityHook',
    'NonFiniteHook',
    'SafeCheckpointHook',
    'LayerDecayOptimWrapperConstructor',
    'build_runner',
    'make_deterministic',
]
