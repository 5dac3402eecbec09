"""Tensor functions: no parameters, no state, no OpenMMLab."""

from .backends.naive import naive_gaussian_bias
from .gaussian_attention import BACKENDS, choose_backend, gaussian_attention
from .gaussian_bias import gaussian_bias
from .gaussian_parameters import gaussian_parameters
from .patch_refinement import refine_patches

__all__ = [
    'BACKENDS',
    'choose_backend',
    'gaussian_attention',
    'gaussian_bias',
    'gaussian_parameters',
    'naive_gaussian_bias',
    'refine_patches',
]
