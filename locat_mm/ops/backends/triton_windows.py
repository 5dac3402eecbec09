"""The operator of :mod:`.triton` for windows: few tokens, and a dense bias that all images share.

The bias is Swin's relative position bias plus its shift mask. There are no atomics: each program
sums the bias's gradient over its images, and the sums of the programs are added in one order. The
kernels are in :mod:`.triton_window_kernels`, which is imported at the first call.
"""

import torch
from torch import Tensor

from ..geometry import Geometry
from .kernel_operator import kernel_operator
from .tile_sizes import window_warps
from .triton_launch import (
    capability,
    empty_like_heads,
    gaussian_strides,
    is_interpreted,
    on_device,
    readable,
    strides_of,
    tf32_allowed,
)

__all__ = ['why_not', 'window_attention']

#: All logits of a window lie in the registers of one program, and float32 keys and values of wider
#: heads do not fit into the shared memory of consumer cards.
_MAX_TOKENS, _MAX_HEAD_DIM = 64, 64
#: Images are spread over more programs until there are so many. A constant, so that the sums, and
#: with them all bits, are the same on every GPU.
_ENOUGH_PROGRAMS = 1024


def why_not(q: Tensor) -> str | None:
    """The reason why :func:`window_attention` cannot take such queries, or None."""
    num_tokens, head_dim = q.shape[-2:]
    if num_tokens > _MAX_TOKENS:
        return f'it takes an attn_bias for at most {_MAX_TOKENS} tokens, got {num_tokens}'
    if head_dim > _MAX_HEAD_DIM:
        return f'it takes an attn_bias for heads of at most {_MAX_HEAD_DIM}, got {head_dim}'
    return None


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    attn_bias: Tensor,
    correlation: Tensor | None,
    geometry: Geometry,
    scale: float,
) -> Tensor:
    """Attention in windows, see :func:`why_not`; differentiable in its tensors.

    Args:
        q, k, v: ``[B, heads, N, head_dim]``, B = images · windows.
        variance, alpha, correlation: float32, of :func:`locat_mm.ops.gaussian_attention`.
        attn_bias: float or bool (True = attend), broadcastable to ``[windows, heads, N, N]``.

    Returns:
        ``[B, heads, N, head_dim]``, its memory in the order ``[B, N, heads, head_dim]``.
    """
    num_heads, num_tokens = q.shape[1:3]
    if attn_bias.dtype == torch.bool:
        blocked = torch.zeros_like(attn_bias, dtype=torch.float32)
        attn_bias = blocked.masked_fill(~attn_bias, float('-inf'))
    num_windows = attn_bias.shape[0] if attn_bias.ndim == 4 else 1
    # The gradient of an expanded axis is summed by autograd.
    bias = attn_bias.float().expand(num_windows, num_heads, num_tokens, num_tokens)
    if correlation is None:
        correlation = alpha.new_empty(0)  # an operator returns a tensor for each of its inputs
    (out,) = _attention(q, k, v, variance, alpha, bias, correlation, *geometry, scale)
    return out


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    bias: Tensor,
    correlation: Tensor,
    geometry: Geometry,
    scale: float,
) -> Tensor:
    """The output. An empty correlation stands for none."""
    out = empty_like_heads(q)
    inputs = q, k, v, variance, alpha, bias, correlation
    _launch('window_forward', inputs, [out], [], geometry, scale)
    return out


def run_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    bias: Tensor,
    correlation: Tensor,
    d_out: Tensor,
    geometry: Geometry,
    scale: float,
) -> list[Tensor]:
    """Gradients of q, k, v, variance, alpha, bias and correlation."""
    d_q, d_k, d_v = (empty_like_heads(x) for x in (q, k, v))
    # Contiguous, whatever the memory order of the inputs.
    d_variance, d_alpha, d_correlation = (
        torch.empty(x.shape, dtype=x.dtype, device=q.device) for x in (variance, alpha, correlation)
    )
    parts, _ = _split(q, bias.shape[0])
    d_bias = q.new_empty(parts, *bias.shape, dtype=torch.float32)
    inputs = q, k, v, variance, alpha, bias, correlation
    gradients = [d_variance, d_alpha, d_correlation, d_bias]
    strided = [readable(d_out), d_q, d_k, d_v]
    _launch('window_backward', inputs, strided, gradients, geometry, scale)
    return [d_q, d_k, d_v, d_variance, d_alpha, d_bias.sum(0), d_correlation]


def _split(q: Tensor, num_windows: int) -> tuple[int, int]:
    """Into how many programs the images of a window and head are split, and images of each."""
    num_images = q.shape[0] // num_windows
    per_program = max(1, num_images * num_windows * q.shape[1] // _ENOUGH_PROGRAMS)
    per_program = min(per_program, 8)
    return -(-num_images // per_program), per_program


def _launch(
    kernel: str,
    inputs: tuple[Tensor, ...],
    strided: list[Tensor],
    contiguous: list[Tensor],
    geometry: Geometry,
    scale: float,
) -> None:
    """Run one kernel.

    Args:
        inputs: q, k, v, variance, alpha, bias and correlation.
        strided: further tensors ``[B, heads, N, head_dim]``.
        contiguous: further results.
    """
    from . import triton_window_kernels

    *heads, variance, alpha, bias, correlation = inputs
    q, k, v, bias = (readable(x) for x in (*heads, bias))
    gaussians = variance, alpha, correlation if correlation.numel() else None
    batch_size, num_heads, num_tokens, head_dim = q.shape
    height, width, num_prefix, eps, max_sq_distance = geometry
    num_windows = bias.shape[0]
    parts, per_program = _split(q, num_windows)
    # The tile has the window's columns, if it is large enough.
    cols = 1 << (width - 1).bit_length()
    if num_prefix or cols * height > _MAX_TOKENS:
        cols = 0
    num_slots = cols * height if cols else num_tokens
    if not batch_size:
        return  # a grid of no programs cannot be launched
    with on_device(q.device):
        getattr(triton_window_kernels, f'{kernel}_kernel')[(parts * num_windows * num_heads,)](
            *(q, k, v, *gaussians, bias, *strided, *contiguous),
            *strides_of(q, k, v),
            *gaussian_strides(*gaussians),
            *strides_of(bias, *strided),
            num_heads,
            num_windows,
            batch_size // num_windows,
            per_program,
            num_tokens,
            height,
            width,
            num_prefix,
            scale,
            eps,
            max_sq_distance,
            DIM=head_dim,
            BLOCK_DIM=_power_of_2(head_dim),
            BLOCK=_power_of_2(num_slots),
            COLS=cols,
            CLAMP=max_sq_distance < (max(height, width) - 1) ** 2,
            PREFIX=num_prefix > 0,
            PRECISION='tf32' if tf32_allowed() else 'ieee',
            UPCAST=q.dtype == torch.bfloat16 and is_interpreted(),
            ROTATED=correlation.numel() > 0,
            num_warps=window_warps(q.dtype, capability(q.device)[0]),
            num_stages=1,
            enable_fp_fusion=True,  # from Triton 3.10 on the default is False
        )


def _power_of_2(size: int) -> int:
    """At least 16: a tile's smallest side in a matrix product."""
    return max(16, 1 << (size - 1).bit_length())


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    bias: Tensor,
    correlation: Tensor,
    height: int,
    width: int,
    num_prefix_tokens: int,
    eps: float,
    max_sq_distance: float,
    scale: float,
) -> tuple[Tensor]:
    geometry = Geometry(height, width, num_prefix_tokens, eps, max_sq_distance)
    return (run_forward(q, k, v, variance, alpha, bias, correlation, geometry, scale),)


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    bias: Tensor,
    correlation: Tensor,
    d_out: Tensor,
    height: int,
    width: int,
    num_prefix_tokens: int,
    eps: float,
    max_sq_distance: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    geometry = Geometry(height, width, num_prefix_tokens, eps, max_sq_distance)
    d_q, d_k, d_v, d_variance, d_alpha, d_bias, d_correlation = run_backward(
        q, k, v, variance, alpha, bias, correlation, d_out, geometry, scale
    )
    return d_q, d_k, d_v, d_variance, d_alpha, d_bias, d_correlation


def _fake_forward(q, *_):
    return (empty_like_heads(q),)


def _fake_backward(q, k, v, variance, alpha, bias, correlation, *_):
    heads = (empty_like_heads(x) for x in (q, k, v))
    return *heads, *(x.new_empty(x.shape) for x in (variance, alpha, bias, correlation))


_attention = kernel_operator(
    'window_attention', _forward, _fake_forward, _backward, _fake_backward, num_tensors=7
)
