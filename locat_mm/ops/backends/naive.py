"""The reference: GAug's attention line by line, as the paper writes it (arXiv 2603.04892).

Read this file first. All other backends are held to it in float64. It holds tensors of
``[B, heads, H·W, H·W, 2]``, so it is for small inputs.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..gaussian_bias import full_precision
from ..geometry import Geometry, check_shapes

__all__ = ['naive_attention', 'naive_gaussian_bias', 'why_not']


def naive_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    geometry: Geometry,
    *,
    scale: float,
    attn_bias: Tensor | None = None,
    dropout_p: float = 0.0,
    correlation: Tensor | None = None,
) -> Tensor:
    """``softmax(q kᵀ·scale + S [+ attn_bias]) v``; see :func:`locat_mm.ops.gaussian_attention`."""
    logits = q @ k.transpose(-2, -1) * scale  # [B, heads, N, N]
    grid_size = geometry.grid_size
    logits = logits + naive_gaussian_bias(
        variance, alpha, grid_size, *geometry[2:], correlation=correlation
    )
    if attn_bias is not None:
        logits = logits + _additive(attn_bias, logits)
    weights = F.dropout(logits.softmax(dim=-1), dropout_p)
    return weights.to(v.dtype) @ v


def naive_gaussian_bias(
    variance: Tensor,
    alpha: Tensor,
    grid_size: tuple[int, int],
    num_prefix_tokens: int = 0,
    eps: float = 0.1,
    max_sq_distance: float = math.inf,
    correlation: Tensor | None = None,
) -> Tensor:
    """:func:`locat_mm.ops.gaussian_bias` line by line: same arguments, result and errors."""
    check_shapes(variance, alpha, Geometry(*grid_size), correlation=correlation)
    variance, alpha = full_precision(variance), full_precision(alpha)
    height, width = grid_size
    coords = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(variance)
    coords = coords.reshape(-1, 2)  # [H·W, 2]
    if correlation is None:
        sq_distance = (coords[:, None] - coords[None, :]).square()  # D: [H·W, H·W, 2]
        exponent = (-0.5 * sq_distance).clamp(min=-0.5 * max_sq_distance)
        exponent = (exponent / (variance + eps)[..., :, None, :]).sum(-1)
    else:
        longest = math.sqrt(max_sq_distance)
        distance = (coords[None, :] - coords[:, None]).clamp(-longest, longest)
        dy, dx = distance.unbind(-1)  # from query to key: [H·W, H·W]
        vy, vx = (variance + eps)[..., :, None, :].unbind(-1)  # [..., H·W, 1]
        rho = full_precision(correlation)[..., :, None]
        form = dy**2 / vy - 2 * rho * dy * dx / (vy.sqrt() * vx.sqrt()) + dx**2 / vx
        exponent = -0.5 * form / (1 - rho**2)
    gaussian = torch.exp(exponent)  # G: [..., H·W, H·W]
    bias = alpha[..., :, None] * gaussian  # S
    return F.pad(bias, (num_prefix_tokens, 0, num_prefix_tokens, 0))  # [..., N, N]


def _additive(attn_bias: Tensor, logits: Tensor) -> Tensor:
    """A bias or mask (True = attend) as a float bias; that of windows is repeated per image."""
    if attn_bias.dtype == torch.bool:
        attn_bias = torch.zeros_like(attn_bias, dtype=logits.dtype).masked_fill(
            ~attn_bias, -math.inf
        )
    if attn_bias.ndim == 4 and 1 < attn_bias.shape[0] < logits.shape[0]:
        attn_bias = attn_bias.repeat(logits.shape[0] // attn_bias.shape[0], 1, 1, 1)
    return attn_bias.to(logits.dtype)


def why_not(q: Tensor, attn_bias: Tensor | None, dropout_p: float) -> None:
    """None: this backend runs every input."""
