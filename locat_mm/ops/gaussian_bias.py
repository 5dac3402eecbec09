"""The Gaussian attention bias of LocAt (arXiv 2603.04892, GAug).

For a query at patch ``p`` and a key at patch ``t``

    S_pt = alpha_p * exp(-1/2 * sum_m D_ptm / variance_pm),    m in {rows, columns},

where ``D`` is the squared coordinate distance along one image axis. Tokens without coordinates
([CLS], registers) come first; their rows and columns are zero. The formula line by line is in
:mod:`.backends.naive`.

With a correlation ``ρ`` per query the kernel is rotated (this is not in the paper). With the
distances ``a = dy/√variance_y`` and ``b = dx/√variance_x``

    S_pt = alpha_p * exp(-1/2 * (a² - 2ρab + b²) / (1 - ρ²))
         = alpha_p * exp(-((a - ρb) / √(2(1 - ρ²)))²) * exp(-b²/2).

The second line is what is computed: no exponent is positive, so nothing overflows.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Geometry, check_shapes

__all__ = [
    'dense_bias',
    'factors',
    'full_precision',
    'gaussian_bias',
    'rotated_terms',
    'signed_distances',
    'smallest_exponent',
    'unit_exponents',
]


def gaussian_bias(
    variance: Tensor,
    alpha: Tensor,
    grid_size: tuple[int, int],
    num_prefix_tokens: int = 0,
    eps: float = 0.1,
    max_sq_distance: float = math.inf,
    correlation: Tensor | None = None,
) -> Tensor:
    """Additive attention bias ``S``.

    Without a correlation it is the product of a row factor and a column factor. The clamp and
    ``eps`` act per axis, so the two-dimensional Gaussian stays a product. H + W exponentials per
    query replace H·W. No tensor larger than the result is allocated.

    With a correlation every element has an exponential of its own. The signed distance along each
    axis is limited to ±√max_sq_distance, and the cross term takes the limited distances too. So
    the exponent is a positive definite form of two numbers, and the Gaussian is at most 1
    everywhere. A correlation of 0 gives the kernel that is aligned with the axes.

    Args:
        variance: ``[..., H·W, 2]``, rows then columns, in squared patches; positive.
        alpha: ``[..., H·W]``, strength of the bias, in logits.
        grid_size: patches along (rows, columns).
        num_prefix_tokens: tokens without coordinates in front of the patches.
        eps: added to the variance, in squared patches.
        max_sq_distance: upper limit of squared distances along one axis (squared patches).
        correlation: ``[..., H·W]``, within (-1, 1): of distances along rows and columns, so a
            positive one turns the kernel toward the diagonal from top left to bottom right.

    Returns:
        ``[..., N, N]`` with N = num_prefix_tokens + H·W, in the dtype of ``variance``, but
        float32 for half types.

    Raises:
        ValueError: if the shapes do not fit the grid.
    """
    geometry = Geometry(*grid_size, num_prefix_tokens, eps, max_sq_distance)
    check_shapes(variance, alpha, geometry, correlation=correlation)
    return dense_bias(variance, alpha, geometry, correlation)


def dense_bias(
    variance: Tensor, alpha: Tensor, geometry: Geometry, correlation: Tensor | None = None
) -> Tensor:
    """:func:`gaussian_bias` of checked shapes."""
    variance, alpha = full_precision(variance), full_precision(alpha)
    if correlation is None:
        unit_exponent = unit_exponents(geometry, variance.dtype, variance.device)
        row_factor, col_factor = factors(variance, unit_exponent, geometry)
        row_factor = row_factor * alpha[..., None]
        bias = row_factor[..., :, None] * col_factor[..., None, :]  # [..., H·W, H, W]
    else:
        distance = signed_distances(geometry, variance.dtype, variance.device)
        row_term, col_term, col_factor = rotated_terms(
            variance, full_precision(correlation), distance, geometry
        )
        exponent = -(row_term[..., :, None] - col_term[..., None, :]).square()
        gaussian = exponent.clamp(min=smallest_exponent(variance.dtype)).exp()
        bias = gaussian * (col_factor * alpha[..., None])[..., None, :]
    bias = bias.flatten(-2)  # [..., H·W, H·W]
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
    sq_distance = _distances(geometry, dtype, device).square_()
    return sq_distance.clamp_(max=geometry.max_sq_distance).mul_(-0.5)


def signed_distances(geometry: Geometry, dtype=None, device=None) -> Tensor:
    """From every patch to every row and to every column, within ±√max_sq_distance.

    Returns:
        ``[H·W, 2, max(H, W)]``, in patches, as :func:`unit_exponents`.
    """
    limit = math.sqrt(geometry.max_sq_distance)
    return _distances(geometry, dtype, device).neg_().clamp_(-limit, limit)


def _distances(geometry: Geometry, dtype, device) -> Tensor:
    axes = [torch.arange(size, device=device, dtype=dtype) for size in geometry.grid_size]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1).flatten(0, 1)
    # Export cannot compare symbolic sizes; the sum is an upper limit of both.
    exporting = torch.compiler.is_exporting()
    num_lines = sum(geometry.grid_size) if exporting else max(geometry.grid_size)
    lines = torch.arange(num_lines, device=device, dtype=dtype)
    return coordinates[..., None] - lines


def factors(variance: Tensor, unit_exponent: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """The Gaussian of every patch query along rows and along columns; G is their outer product.

    Args:
        variance: ``[..., H·W, 2]``, rows then columns, in squared patches; positive.
        unit_exponent: of :func:`unit_exponents`, for the same geometry.

    Returns:
        ``[..., H·W, H]`` and ``[..., H·W, W]``, views of one tensor.
    """
    precision = (variance + geometry.eps).reciprocal_()
    smallest = smallest_exponent(variance.dtype)
    exponent = (unit_exponent * precision.unsqueeze(-1)).clamp_(min=smallest)
    row, col = exponent.exp_().unbind(-2)
    return row[..., : geometry.height], col[..., : geometry.width]


def rotated_terms(
    variance: Tensor, correlation: Tensor, distance: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """What the rotated Gaussian of every patch query is made of, in the names of the module:
    ``a / √(2(1 - ρ²))``, ``ρb / √(2(1 - ρ²))`` and ``exp(-b²/2)``.

    Args:
        variance: ``[..., H·W, 2]``, rows then columns, in squared patches; positive.
        correlation: ``[..., H·W]``, within (-1, 1).
        distance: of :func:`signed_distances`, for the same geometry.

    Returns:
        ``[..., H·W, H]``, ``[..., H·W, W]`` and ``[..., H·W, W]``.
    """
    row, col = (distance * (variance + geometry.eps).rsqrt().unsqueeze(-1)).unbind(-2)
    row, col = row[..., : geometry.height], col[..., : geometry.width]
    steepness = (2 * (1 - correlation) * (1 + correlation)).rsqrt()
    col_exponent = (-0.5 * col.square()).clamp(min=smallest_exponent(variance.dtype))
    return (
        row * steepness[..., None],
        col * (correlation * steepness)[..., None],
        col_exponent.exp(),
    )


def smallest_exponent(dtype: torch.dtype) -> float:
    """Lower limit of the exponent of each of two factors, whose product is the Gaussian.

    Smaller factors do not change a logit, but CPUs compute exp and products of denormal numbers
    several times more slowly.
    """
    return math.log(torch.finfo(dtype).tiny) / 2.2


def full_precision(x: Tensor) -> Tensor:
    """float32 for half types, in which exp and the division lose the far patches."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
