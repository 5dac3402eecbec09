"""Gaussian attention as fused Triton kernels, which never hold an N × N tensor.

Forward and backward compute the logits tile by tile. Kept for the backward pass are q, k, v,
variance, alpha, the output and one number per query. There are no atomics, so equal inputs give
equal bits. The kernels are in :mod:`.triton_kernels`, which is imported at the first call: this
module needs no Triton.
"""

import functools
import importlib.util

import torch
from torch import Tensor

from ..geometry import Geometry
from . import triton_windows
from .kernel_operator import kernel_operator
from .triton_launch import capability as _capability
from .triton_launch import (
    fake_backward,
    fake_forward,
    is_interpreted,
    run_backward,
    run_forward,
)
from .triton_rotated import rotated_attention

__all__ = ['triton_attention', 'why_not']

_HAS_TRITON = importlib.util.find_spec('triton') is not None
#: 3.2 cannot compile the kernels.
_OLDEST_TRITON = (3, 4)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_HEAD_DIMS = (16, 128)


def why_not(q: Tensor, attn_bias: Tensor | None = None, dropout_p: float = 0.0) -> str | None:
    """The reason why :func:`triton_attention` cannot run such an input, None if it can.

    CPU tensors run only in the Triton interpreter (``TRITON_INTERPRET=1``), which is for tests.
    """
    if not _HAS_TRITON:
        return 'Triton is not installed'
    if attn_bias is not None and (reason := triton_windows.why_not(q)) is not None:
        return reason
    if dropout_p > 0:
        return f'it has no dropout, got dropout_p={dropout_p}'
    if q.dtype not in _DTYPES:
        return f'it takes float32, float16 or bfloat16, got {q.dtype}'
    low, high = _HEAD_DIMS
    if not low <= q.shape[-1] <= high:
        return f'the head dimension must be within {low} to {high}, got {q.shape[-1]}'
    if q.device.type == 'cpu' and is_interpreted():
        return None
    if q.device.type != 'cuda' or torch.version.hip:
        return f'it needs an NVIDIA GPU, got a tensor on {q.device}'
    if _triton_version() < _OLDEST_TRITON:
        found, needed = ('.'.join(map(str, x)) for x in (_triton_version(), _OLDEST_TRITON))
        return f'it needs Triton {needed}, {found} is installed'
    major, minor = _capability(q.device)
    if major < 8:
        return f'it needs compute capability 8.0 (for bfloat16), got {major}.{minor} on {q.device}'
    return None


def triton_attention(
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
    """See :func:`locat_mm.ops.gaussian_attention`; differentiable in its five or six tensors.

    Args:
        q, k, v: of one dtype (float32, float16, bfloat16). Views with a contiguous last axis (of
            one qkv tensor, say) are read in place; others are copied.
        variance, alpha, correlation: computed with in float32.
        attn_bias: for windows, that is few tokens, see :func:`why_not`.
        dropout_p: not supported.

    Returns:
        ``[B, heads, N, head_dim]``, its memory in the order ``[B, N, heads, head_dim]``: merging
        the heads is a view.

    Raises:
        ValueError: if :func:`why_not` has a reason.
    """
    reason = why_not(q, attn_bias, dropout_p)
    if reason is not None:
        raise ValueError(f'the triton backend cannot run this: {reason}')
    # No patches are further apart than this: the operator's schema is for finite numbers.
    longest = float((max(geometry.grid_size) - 1) ** 2)
    geometry = geometry._replace(
        eps=float(geometry.eps), max_sq_distance=min(longest, float(geometry.max_sq_distance))
    )
    # The kernels divide by the scale.
    if scale < 0:
        q, scale = -q, -scale
    elif scale == 0:
        q, scale = q * 0, 1.0
    gaussians = variance.float(), alpha.float()
    rho = None if correlation is None else correlation.float()
    if attn_bias is not None:
        return triton_windows.window_attention(
            q, k, v, *gaussians, attn_bias, rho, geometry, float(scale)
        )
    if rho is None:
        out, _ = _attention(q, k, v, *gaussians, *geometry, float(scale))
    else:
        out, _ = rotated_attention(q, k, v, *gaussians, rho, *geometry, float(scale))
    return out


# torch.compile cannot trace into this.
@torch.compiler.assume_constant_result
@functools.cache
def _triton_version() -> tuple[int, int]:
    import triton

    major, minor = triton.__version__.split('.')[:2]
    return int(major), int(minor)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    height: int,
    width: int,
    num_prefix_tokens: int,
    eps: float,
    max_sq_distance: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    geometry = Geometry(height, width, num_prefix_tokens, eps, max_sq_distance)
    return run_forward(q, k, v, variance, alpha, None, geometry, scale)


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    height: int,
    width: int,
    num_prefix_tokens: int,
    eps: float,
    max_sq_distance: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    geometry = Geometry(height, width, num_prefix_tokens, eps, max_sq_distance)
    d_q, d_k, d_v, d_variance, d_alpha = run_backward(
        q, k, v, variance, alpha, None, out, lse, d_out, geometry, scale
    )
    return d_q, d_k, d_v, d_variance, d_alpha


# lse is only for the backward pass.
_attention = kernel_operator(
    'gaussian_attention',
    _forward,
    fake_forward,
    _backward,
    fake_backward,
    num_tensors=5,
    aux_outputs=1,
)
