"""nn.Modules on tokens, and the functions that put GAug into a model."""

from .attach import attach, detach
from .blocks import GaussianBlock, GaussianEvaBlock, add_gaug
from .fixed_gaussian import FixedGaussian
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
    'FixedGaussian',
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
