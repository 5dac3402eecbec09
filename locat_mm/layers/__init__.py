"""nn.Modules on tokens, and the function that puts them into a host."""

from .augment import GaussianBlock, GaussianEvaBlock, augment_attention
from .gaussian_attention import (
    GaussianAugmentedAttention,
    GaussianAugmentedRopeAttention,
    GaussianAugmentedWindowAttention,
)
from .gaussian_augment import GaussianAugment

__all__ = [
    'GaussianAugment',
    'GaussianAugmentedAttention',
    'GaussianAugmentedRopeAttention',
    'GaussianAugmentedWindowAttention',
    'GaussianBlock',
    'GaussianEvaBlock',
    'augment_attention',
]
