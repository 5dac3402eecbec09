"""nn.Modules on tokens, and the functions that put GAug into a model."""

from .attach import attach, detach
from .blocks import GaussianBlock, GaussianEvaBlock, add_gaug
from .gaussian_augment import GaussianAugment
from .hosts.search import SUPPORTED
from .hosts.timm import (
    GaussianAugmentedAttention,
    GaussianAugmentedRopeAttention,
    GaussianAugmentedWindowAttention,
)
from .mixins import GAugMixin

__all__ = [
    'SUPPORTED',
    'GAugMixin',
    'GaussianAugment',
    'GaussianAugmentedAttention',
    'GaussianAugmentedRopeAttention',
    'GaussianAugmentedWindowAttention',
    'GaussianBlock',
    'GaussianEvaBlock',
    'add_gaug',
    'attach',
    'detach',
]
