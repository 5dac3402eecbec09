"""The Gaussian attention bias of LocAt (arXiv 2603.04892, GAug).

For a query at patch ``p`` and a key at patch ``t``

    S_pt = alpha_p * exp(-1/2 * sum_m D_ptm / variance_pm),    m in {rows, columns},

where ``D`` is the squared coordinate distance along one image axis. Tokens without coordinates
([CLS], registers) come first; their rows and columns are zero. The formula line by line is in
:mod:`.backends.naive`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Geometry, check_shapes

__all__ = ['factors', 'full_precision', 'gaussian_bias', 'product_bias', 'unit_exponents']


def gaussian_bias(
    variance: Tensor,
    alpha: Tensor,
    grid_size: tuple[int, int],
    num_prefix_tokens: int = 0,
    eps: float = 0.1,
    max_sq_distance: float = math.inf,
) -> Tensor:
    """Additive attention bias ``S``, built as the product of a row factor and a column factor.

    The clamp and ``eps`` act per axis, so the two-dimensional Gaussian stays a product. H + W
    exponentials per query replace H·W. No tensor larger than the result is allocated.

    Args:
        variance: ``[..., H·W, 2]``, rows then columns, in squared patches; positive.
        alpha: ``[..., H·W]``, strength of the bias, in logits.
        grid_size: patches along (rows, columns).
        num_prefix_tokens: tokens without coordinates in front of the patches.
        eps: added to the variance, in squared patches.
        max_sq_distance: upper limit of squared distances along one axis (squared patches).

    Returns:
        ``[..., N, N]`` with N = num_prefix_tokens + H·W, in the dtype of ``variance``, but
        float32 for half types.

    Raises:
        ValueError: if the shapes do not fit the grid.
    """
    geometry = Geometry(*grid_size, num_prefix_tokens, eps, max_sq_distance)
    check_shapes(variance, alpha, geometry)
    return product_bias(variance, alpha, geometry)


def product_bias(variance: Tensor, alpha: Tensor, geometry: Geometry) -> Tensor:
    """:func:`gaussian_bias` of checked shapes."""
    variance, alpha = full_precision(variance), full_precision(alpha)
    unit_exponent = unit_exponents(geometry, variance.dtype, variance.device)
    row_factor, col_factor = factors(variance, unit_exponent, geometry)
    row_factor = row_factor * alpha[..., None]
    bias = (row_factor[..., :, None] * col_factor[..., None, :]).flatten(-2)  # [..., H·W, H·W]
    if prefix := geometry.num_prefix_tokens:
        bias = F.pad(bias, (prefix, 0, prefix, 0))
    return bias


def unit_exponents(geometry: Geometry, dtype=None, device=None) -> Tensor:
    """-D/2 of every patch to every row and to every column: the exponents at a variance of 1.

    Returns:
        ``[H·W, 2, max(H, W)]``, in squared patches: to the H rows, then to the W columns. Both are
        in one tensor because the results are small: on CPUs the number of steps counts. Under
        ``torch.export`` the last axis has H + W entries.
    """
    axes = [torch.arange(size, device=device, dtype=dtype) for size in geometry.grid_size]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1).flatten(0, 1)
    # Export cannot compare symbolic sizes; the sum is an upper limit of both.
    exporting = torch.compiler.is_exporting()
    num_lines = sum(geometry.grid_size) if exporting else max(geometry.grid_size)
    lines = torch.arange(num_lines, device=device, dtype=dtype)
    sq_distance = (coordinates[..., None] - lines).square_()
    return sq_distance.clamp_(max=geometry.max_sq_distance).mul_(-0.5)


def factors(variance: Tensor, unit_exponent: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """The Gaussian of every patch query along rows and along columns; G is their outer product.

    Args:
        variance: ``[..., H·W, 2]``, rows then columns, in squared patches; positive.
        unit_exponent: of :func:`unit_exponents`, for the same geometry.

    Returns:
        ``[..., H·W, H]`` and ``[..., H·W, W]``, views of one tensor.
    """
    precision = (variance + geometry.eps).reciprocal_()
    # Smaller factors do not change a logit, but CPUs compute exp and products of denormal numbers
    # several times more slowly.
    smallest = math.log(torch.finfo(variance.dtype).tiny) / 2.2
    exponent = (unit_exponent * precision.unsqueeze(-1)).clamp_(min=smallest)
    row, col = exponent.exp_().unbind(-2)
    return row[..., : geometry.height], col[..., : geometry.width]


def full_precision(x: Tensor) -> Tensor:
    """float32 for half types, in which exp and the division lose the far patches."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
