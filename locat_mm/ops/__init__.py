"""Tensor functions: no parameters, no state, no OpenMMLab."""

from .gaussian_attention import BACKENDS, gaussian_attention
from .gaussian_bias import gaussian_bias, naive_gaussian_bias
from .patch_refinement import refine_patches

__all__ = [
    'BACKENDS',
    'gaussian_attention',
    'gaussian_bias',
    'naive_gaussian_bias',
    'refine_patches',
]
