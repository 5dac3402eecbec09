"""nn.Modules on tokens, and the function that puts them into a host."""

from .augment import GaussianBlock, augment_attention
from .gaussian_attention import GaussianAugmentedAttention
from .gaussian_augment import GaussianAugment

__all__ = ['GaussianAugment', 'GaussianAugmentedAttention', 'GaussianBlock', 'augment_attention']
