"""Launches of the kernels of :mod:`.triton`, without autograd.

The kernels are in :mod:`.triton_kernels`, which is imported at the first call.
"""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..geometry import Geometry
from .tile_sizes import tile_sizes

__all__ = [
    'capability',
    'empty_like_heads',
    'fake_backward',
    'fake_forward',
    'gaussian_strides',
    'is_interpreted',
    'on_device',
    'readable',
    'run_backward',
    'run_forward',
    'strides_of',
    'tf32_allowed',
]


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get('TRITON_INTERPRET') == '1'


@torch.compiler.assume_constant_result  # torch.compile cannot trace into it
def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability; (0, 0) for a CPU, in the interpreter."""
    return torch.cuda.get_device_capability(device) if device.type == 'cuda' else (0, 0)


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    correlation: Tensor | None,
    geometry: Geometry,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The output and, per query, the logarithm (base 2) of the sum of exponentials."""
    q, k, v = readable(q), readable(k), readable(v)
    out = empty_like_heads(q)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    _launch(
        'forward',
        q,
        [q, k, v, variance, alpha, correlation, out, lse],
        [*strides_of(q, k, v), *gaussian_strides(variance, alpha, correlation), *strides_of(out)],
        correlation is not None,
        geometry,
        scale,
    )
    return out, lse


def run_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    correlation: Tensor | None,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    geometry: Geometry,
    scale: float,
) -> list[Tensor]:
    """Gradients of q, k, v, variance, alpha and correlation."""
    q, k, v, d_out = readable(q), readable(k), readable(v), readable(d_out)
    d_q, d_k, d_v = empty_like_heads(q), empty_like_heads(k), empty_like_heads(v)
    rotated = correlation is not None
    shapes = variance.shape, alpha.shape, *([alpha.shape] if rotated else [])
    d_gaussians = [torch.empty(shape, dtype=variance.dtype, device=q.device) for shape in shapes]
    table = lse.new_empty(5 if rotated else 4, *lse.shape)
    gaussians = variance, alpha, correlation
    outputs = d_q, *d_gaussians, *([] if rotated else [None]), table
    _launch(
        'backward_queries',
        q,
        [q, k, v, *gaussians, out, lse, d_out, *outputs],
        [*strides_of(q, k, v), *gaussian_strides(*gaussians), *strides_of(out, d_out, d_q)],
        rotated,
        geometry,
        scale,
    )
    _launch(
        'backward_keys',
        q,
        [q, k, v, lse, table, d_out, d_k, d_v],
        [*strides_of(q, k, v, d_out, d_k, d_v)],
        rotated,
        geometry,
        scale,
    )
    return [d_q, d_k, d_v, *d_gaussians]


def gaussian_strides(
    variance: Tensor, alpha: Tensor, correlation: Tensor | None
) -> list[int | None]:
    """Of all axes; None for a correlation that there is not."""
    of_correlation = [None] * 3 if correlation is None else correlation.stride()
    return [*variance.stride(), *alpha.stride(), *of_correlation]


def fake_forward(q, *_):
    return empty_like_heads(q), q.new_empty(q.shape[:3], dtype=torch.float32)


def fake_backward(q, k, v, variance, alpha, *_):
    d_variance, d_alpha = variance.new_empty(variance.shape), alpha.new_empty(alpha.shape)
    return empty_like_heads(q), empty_like_heads(k), empty_like_heads(v), d_variance, d_alpha


def _launch(
    kernel: str,
    q: Tensor,
    tensors: list[Tensor | None],
    strides: list[int | None],
    rotated: bool,
    geometry: Geometry,
    scale: float,
) -> None:
    """Run one kernel: over blocks of queries, or for ``backward_keys`` over tiles of keys.

    Args:
        tensors, strides: all of the kernel's, in its order.
        rotated: the kernel's tensors have a correlation.
    """
    from . import triton_kernels

    batch_size, num_heads, num_tokens, head_dim = q.shape
    height, width, num_prefix, eps, max_sq_distance = geometry
    major, _ = capability(q.device)
    sizes = tile_sizes(kernel, head_dim, geometry.grid_size, q.dtype, major, rotated)
    strips, groups = -(-width // sizes.cols), -(-height // sizes.rows)
    padding_cols = strips * sizes.cols - width
    fold = 0 < num_prefix <= height * padding_cols
    if kernel == 'backward_keys':
        num_programs = strips * groups
        if not fold:
            num_programs += -(-num_prefix // (sizes.rows * sizes.cols))
    else:
        num_programs = -(-num_tokens // sizes.queries)
    options = dict(WAIT=major == 9) if kernel == 'backward_keys' else {}
    grid = (num_programs * batch_size * num_heads,)
    with on_device(q.device):
        getattr(triton_kernels, f'{kernel}_kernel')[grid](
            *tensors,
            *strides,
            num_heads,
            num_tokens,
            height,
            width,
            num_prefix,
            scale,
            eps,
            max_sq_distance,
            DIM=head_dim,
            BLOCK_DIM=max(16, 1 << (head_dim - 1).bit_length()),
            BLOCK=sizes.queries,
            ROWS=sizes.rows,
            COLS=sizes.cols,
            CLAMP=max_sq_distance < (max(height, width) - 1) ** 2,
            MASKED=padding_cols > 0 or groups * sizes.rows > height,
            PREFIX=num_prefix > 0,
            FOLD=fold,
            PRECISION='tf32' if tf32_allowed() else 'ieee',
            UPCAST=q.dtype == torch.bfloat16 and is_interpreted(),
            ROTATED=rotated,
            num_warps=sizes.num_warps,
            num_stages=sizes.num_stages,
            maxnreg=sizes.max_registers,
            enable_fp_fusion=True,  # from Triton 3.10 on the default is False
            **options,
        )


def strides_of(*tensors: Tensor) -> list[int]:
    """Of the batch, head and token axes."""
    return [stride for x in tensors for stride in x.stride()[:3]]


def readable(x: Tensor) -> Tensor:
    """The tensor, or a copy that kernels can index: last stride 1, 32-bit offsets in a head."""
    fits = x.shape[-2] * x.stride(-2) < 2**31
    return x if x.stride(-1) == 1 and fits else x.contiguous()


def empty_like_heads(x: Tensor) -> Tensor:
    """Like ``x`` ``[B, heads, N, d]``, in the memory order ``[B, N, heads, d]``."""
    batch_size, num_heads, num_tokens, head_dim = x.shape
    return x.new_empty(batch_size, num_tokens, num_heads, head_dim).transpose(1, 2)


def on_device(device: torch.device) -> AbstractContextManager:
    """Make a device current: Triton launches there, wherever its tensors are."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def tf32_allowed() -> bool:
    """Whether float32 products may use TF32."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):  # torch 2.9
        return matmul.fp32_precision == 'tf32'
    return matmul.allow_tf32
