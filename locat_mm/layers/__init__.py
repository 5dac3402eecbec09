"""nn.Modules on tokens, and the function that puts them into a host."""

from .attach import attach, detach
from .augment import GaussianBlock, GaussianEvaBlock, augment_attention
from .gaussian_attention import (
    GaussianAugmentation,
    GaussianAugmentedAttention,
    GaussianAugmentedRopeAttention,
    GaussianAugmentedWindowAttention,
)
from .gaussian_augment import GaussianAugment
from .hosts import SUPPORTED

__all__ = [
    'SUPPORTED',
    'GaussianAugment',
    'GaussianAugmentation',
    'GaussianAugmentedAttention',
    'GaussianAugmentedRopeAttention',
    'GaussianAugmentedWindowAttention',
    'GaussianBlock',
    'GaussianEvaBlock',
    'attach',
    'augment_attention',
    'detach',
]
