"""The Gaussian attention bias of LocAt (arXiv 2603.04892, GAug).

For a spatial query at patch ``p`` and a key at patch ``t``

    S_pt = alpha_p * exp(-1/2 * sum_m D_ptm / variance_pm),    m in {rows, columns},

with ``D`` the squared coordinate distance along one image axis. Tokens without coordinates
([CLS], registers) come first and have zero rows and columns.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['check_shapes', 'factors', 'gaussian_bias', 'naive_gaussian_bias', 'unit_exponents']


def unit_exponents(
    grid_size: tuple[int, int], max_sq_distance: float, dtype=None, device=None
) -> Tensor:
    """-D/2 of every patch to every row and to every column: exponents at a variance of 1.

    Args:
        grid_size: patches along (rows, columns), (H, W); patches are row-major.
        max_sq_distance: distances are cut here (squared patches).

    Returns:
        ``[H·W, 2, max(H, W)]``, in squared patches: to rows (of which there are H), to columns
        (W); D is the squared distance. Both in one tensor, because what is computed from them is
        small: on CPUs the number of steps counts.
    """
    height, width = grid_size
    patch = torch.arange(height * width, device=device)
    coordinates = torch.stack((patch // width, patch % width), dim=-1).to(dtype)
    ruler = torch.arange(max(grid_size), device=device, dtype=dtype)
    return (coordinates[..., None] - ruler).square_().clamp_(max=max_sq_distance).mul_(-0.5)


def factors(
    variance: Tensor, unit_exponent: Tensor, grid_size: tuple[int, int], eps: float
) -> tuple[Tensor, Tensor]:
    """The Gaussian of every patch query along rows and along columns; G is their outer product.

    Args:
        variance: ``[..., H·W, 2]``, rows then columns, in squared patches; positive.
        unit_exponent: of :func:`unit_exponents`, for the same grid.
        grid_size: patches along (rows, columns).
        eps: added to the variance, in squared patches.

    Returns:
        ``[..., H·W, H]`` and ``[..., H·W, W]``, views of one tensor.
    """
    precision = (variance + eps).reciprocal_()
    # A factor below this is nothing beside the logits; CPUs take an exp or a product of numbers
    # too small for the normal range several times as long.
    smallest = math.log(torch.finfo(variance.dtype).tiny) / 2.2
    exponent = (unit_exponent * precision.unsqueeze(-1)).clamp_(min=smallest)
    row, col = exponent.exp_().unbind(-2)
    return row[..., : grid_size[0]], col[..., : grid_size[1]]


def gaussian_bias(
    variance: Tensor,
    alpha: Tensor,
    grid_size: tuple[int, int],
    num_prefix_tokens: int = 0,
    eps: float = 0.1,
    max_sq_distance: float = float('inf'),
) -> Tensor:
    """Additive attention bias ``S``, built as the product of a row and a column factor.

    The clamp and ``eps`` act per axis, so the two-dimensional Gaussian stays a product and
    H + W exponentials per query replace H·W; no tensor larger than the result is held.

    Args:
        variance: ``[..., H·W, 2]``, rows then columns, in squared patches; positive.
        alpha: ``[..., H·W]``, strength of the bias, in logits.
        grid_size: patches along (rows, columns).
        num_prefix_tokens: tokens without coordinates in front of the patches.
        eps: added to the variance, in squared patches.
        max_sq_distance: squared distances along one axis are cut here (squared patches).

    Returns:
        ``[..., N, N]`` with N = num_prefix_tokens + H·W, in the dtype of ``variance``, but
        float32 for half types.

    Raises:
        ValueError: if the shapes do not fit the grid.
    """
    check_shapes(variance, alpha, grid_size)
    variance, alpha = _to_full_precision(variance), _to_full_precision(alpha)
    unit_exponent = unit_exponents(grid_size, max_sq_distance, variance.dtype, variance.device)
    row_factor, col_factor = factors(variance, unit_exponent, grid_size, eps)
    row_factor = row_factor * alpha[..., None]
    bias = (row_factor[..., :, None] * col_factor[..., None, :]).flatten(-2)  # [..., H·W, H·W]
    if num_prefix_tokens:
        bias = F.pad(bias, (num_prefix_tokens, 0, num_prefix_tokens, 0))
    return bias


def naive_gaussian_bias(
    variance: Tensor,
    alpha: Tensor,
    grid_size: tuple[int, int],
    num_prefix_tokens: int = 0,
    eps: float = 0.1,
    max_sq_distance: float = float('inf'),
) -> Tensor:
    """:func:`gaussian_bias` line by line as the paper writes it, for reading and for tests.

    Same arguments, result and errors; holds ``[..., H·W, H·W, 2]``.
    """
    check_shapes(variance, alpha, grid_size)
    variance, alpha = _to_full_precision(variance), _to_full_precision(alpha)
    height, width = grid_size
    coords = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(variance)
    coords = coords.reshape(-1, 2)  # [H·W, 2]
    distance = (coords[:, None] - coords[None, :]).square()  # D: [H·W, H·W, 2]
    exponent = (-0.5 * distance).clamp(min=-0.5 * max_sq_distance)
    exponent = exponent / (variance + eps)[..., :, None, :]
    gaussian = torch.exp(exponent.sum(-1))  # G: [..., H·W, H·W]
    bias = alpha[..., :, None] * gaussian  # S
    return F.pad(bias, (num_prefix_tokens, 0, num_prefix_tokens, 0))


def _to_full_precision(x: Tensor) -> Tensor:
    # exp and the division lose the far patches in half types.
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_shapes(
    variance: Tensor,
    alpha: Tensor,
    grid_size: tuple[int, int],
    leading: tuple[int, ...] | None = None,
) -> None:
    """Raise ValueError unless they are ``[*leading, H·W, 2]`` and ``[*leading, H·W]``."""
    num_patches = grid_size[0] * grid_size[1]
    leading = variance.shape[:-2] if leading is None else leading
    if variance.shape != (*leading, num_patches, 2):
        axes = ', '.join(map(str, leading))
        raise ValueError(
            f'variance must be of shape ({axes}, {num_patches}, 2) for a grid of '
            f'{grid_size[0]}×{grid_size[1]} patches, got {tuple(variance.shape)}'
        )
    if alpha.shape != variance.shape[:-1]:
        raise ValueError(
            f'alpha must have the shape of variance without its last axis, '
            f'{tuple(variance.shape[:-1])}, got {tuple(alpha.shape)}'
        )
