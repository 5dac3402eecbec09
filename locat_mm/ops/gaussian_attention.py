"""Multi-head attention with the Gaussian bias of LocAt (arXiv 2603.04892, GAug):
``Z = softmax(q kᵀ·scale + S [+ attn_bias]) v``.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .gaussian_bias import gaussian_bias, naive_gaussian_bias

__all__ = ['BACKENDS', 'gaussian_attention']


def gaussian_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    grid_size: tuple[int, int],
    num_prefix_tokens: int = 0,
    *,
    eps: float = 0.1,
    max_sq_distance: float = float('inf'),
    scale: float | None = None,
    attn_bias: Tensor | None = None,
    dropout_p: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Attention whose logits carry a Gaussian bias toward near patches.

    Args:
        q, k, v: ``[B, heads, N, head_dim]`` with N = num_prefix_tokens + H·W, patches
            row-major after the prefix tokens.
        variance: ``[B, heads, H·W, 2]`` per patch query, rows then columns, in squared
            patches; positive.
        alpha: ``[B, heads, H·W]`` per patch query, in logits.
        grid_size: patches along (rows, columns).
        num_prefix_tokens: tokens without coordinates in front; their rows and columns get 0.
        eps: added to the variance, in squared patches.
        max_sq_distance: squared distances along one axis are cut here (squared patches).
        scale: factor of ``q kᵀ``; ``head_dim ** -0.5`` by default.
        attn_bias: further additive bias (float) or mask (bool, True = attend), broadcastable
            to ``[B, heads, N, N]``: relative position bias, shift mask. A first axis that divides
            B is repeated: the same windows in every image.
        dropout_p: dropout of the attention weights; the caller passes 0 outside training.
        backend: ``'eager'`` (scaled_dot_product_attention on a dense bias), ``'naive'`` (the
            formula line by line), or None for the fastest that can run.

    Returns:
        ``[B, heads, N, head_dim]`` in the dtype of ``q``.

    Raises:
        ValueError: if the shapes do not fit the grid or the backend is unknown.
    """
    num_patches = grid_size[0] * grid_size[1]
    if q.shape[-2] != num_prefix_tokens + num_patches:
        raise ValueError(
            f'{q.shape[-2]} tokens do not fit {num_prefix_tokens} prefix tokens and a grid of '
            f'{grid_size[0]}×{grid_size[1]} = {num_patches} patches'
        )
    if backend is None:
        backend = 'eager'
    bias_kwargs = dict(
        variance=variance,
        alpha=alpha,
        grid_size=grid_size,
        num_prefix_tokens=num_prefix_tokens,
        eps=eps,
        max_sq_distance=max_sq_distance,
    )
    return get_backend(backend)(
        q,
        k,
        v,
        bias_kwargs,
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
        attn_bias=attn_bias,
        dropout_p=dropout_p,
    )


def get_backend(name: str) -> Callable[..., Tensor]:
    """The implementation of a backend.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in BACKENDS:
        raise ValueError(f'unknown attention backend {name!r}; available: {", ".join(BACKENDS)}')
    return BACKENDS[name]


def _eager(q, k, v, bias_kwargs, *, scale, attn_bias, dropout_p) -> Tensor:
    bias = gaussian_bias(**bias_kwargs)
    if attn_bias is not None:
        bias = _add(bias, attn_bias)
    # A float32 mask with half-precision q is misread by some CUDA kernels.
    bias = bias.to(q.dtype)
    # cuDNN's kernel can return NaN gradients under strongly negative rows. CPU's only fused
    # kernel is FLASH, so nothing is pinned there.
    kernels = (
        sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
        if q.is_cuda
        else nullcontext()
    )
    with kernels:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=dropout_p, scale=scale
        )


def _naive(q, k, v, bias_kwargs, *, scale, attn_bias, dropout_p) -> Tensor:
    logits = (q @ k.transpose(-2, -1)) * scale
    logits = logits + naive_gaussian_bias(**bias_kwargs)
    if attn_bias is not None:
        logits = _add(logits, attn_bias)
    weights = F.dropout(logits.softmax(dim=-1), dropout_p)
    return weights.to(v.dtype) @ v


def _add(logits: Tensor, attn_bias: Tensor) -> Tensor:
    if attn_bias.ndim == logits.ndim and 1 < attn_bias.shape[0] < logits.shape[0]:
        # The same windows in every image: no copy of the bias per image.
        return _add(logits.unflatten(0, (-1, attn_bias.shape[0])), attn_bias).flatten(0, 1)
    if attn_bias.dtype == torch.bool:
        return logits.masked_fill(~attn_bias, float('-inf'))
    return logits + attn_bias


#: name -> implementation; a further backend is one more entry.
BACKENDS: dict[str, Callable[..., Tensor]] = {'eager': _eager, 'naive': _naive}
