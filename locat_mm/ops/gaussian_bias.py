"""The Gaussian attention bias of LocAt (arXiv 2603.04892, GAug).

For a spatial query at patch ``p`` and a key at patch ``t``

    S_pt = alpha_p * exp(-1/2 * sum_m D_ptm / variance_pm),    m in {rows, columns},

with ``D`` the squared coordinate distance along one image axis. Tokens without coordinates
([CLS], registers) come first and have zero rows and columns.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['gaussian_bias', 'naive_gaussian_bias', 'squared_distances']


def squared_distances(grid_size: tuple[int, int], device=None, dtype=None) -> tuple[Tensor, Tensor]:
    """Squared distance of every patch to every row and to every column.

    Args:
        grid_size: patches along (rows, columns), (H, W); patches are row-major.

    Returns:
        ``[H·W, H]`` and ``[H·W, W]``, in squared patches.
    """
    height, width = grid_size
    rows = torch.arange(height, device=device, dtype=dtype)
    cols = torch.arange(width, device=device, dtype=dtype)
    to_row = (rows[:, None] - rows).square().repeat_interleave(width, dim=0)  # [H·W, H]
    to_col = (cols[:, None] - cols).square().repeat(height, 1)  # [H·W, W]
    return to_row, to_col


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
    _check_shapes(variance, alpha, grid_size)
    variance, alpha = _to_full_precision(variance), _to_full_precision(alpha)
    to_row, to_col = squared_distances(grid_size, variance.device, variance.dtype)
    precision = -0.5 / (variance + eps)  # [..., H·W, 2]
    row_factor = torch.exp(to_row.clamp(max=max_sq_distance) * precision[..., :1])  # [..., H·W, H]
    col_factor = torch.exp(to_col.clamp(max=max_sq_distance) * precision[..., 1:])  # [..., H·W, W]
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
    _check_shapes(variance, alpha, grid_size)
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


def _check_shapes(variance: Tensor, alpha: Tensor, grid_size: tuple[int, int]) -> None:
    num_patches = grid_size[0] * grid_size[1]
    if variance.shape[-2:] != (num_patches, 2):
        raise ValueError(
            f'variance must end in (H·W, 2) = ({num_patches}, 2) for a grid of '
            f'{grid_size[0]}×{grid_size[1]} patches, got shape {tuple(variance.shape)}'
        )
    if alpha.shape != variance.shape[:-1]:
        raise ValueError(
            f'alpha must have the shape of variance without its last axis, '
            f'{tuple(variance.shape[:-1])}, got {tuple(alpha.shape)}'
        )
