"""Gaussian attention as fused Triton kernels, which never hold an N × N tensor.

Forward and backward compute the logits tile by tile. Kept for the backward pass are q, k, v,
variance, alpha, the output and one number per query. There are no atomics, so equal inputs give
equal bits. The kernels are in :mod:`.triton_kernels`, which is imported at the first call: this
module needs no Triton.
"""

import functools
import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..geometry import Geometry
from .kernel_operator import kernel_operator
from .tile_sizes import tile_sizes

__all__ = [
    'fake_backward',
    'fake_forward',
    'is_interpreted',
    'on_device',
    'readable',
    'run_backward',
    'run_forward',
    'triton_attention',
    'why_not',
]

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
    if attn_bias is not None:
        return 'it takes no attn_bias'
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
    attn_bias: None = None,
    dropout_p: float = 0.0,
    correlation: Tensor | None = None,
) -> Tensor:
    """See :func:`locat_mm.ops.gaussian_attention`; differentiable in its five or six tensors.

    Args:
        q, k, v: of one dtype (float32, float16, bfloat16). Views with a contiguous last axis (of
            one qkv tensor, say) are read in place; others are copied.
        variance, alpha, correlation: computed with in float32.
        attn_bias, dropout_p: not supported, see :func:`why_not`.

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
    if correlation is None:
        out, _ = _attention(q, k, v, *gaussians, *geometry, float(scale))
    else:
        from .triton_rotated import rotated_attention  # which imports this module

        gaussians = *gaussians, correlation.float()
        out, _ = rotated_attention(q, k, v, *gaussians, *geometry, float(scale))
    return out


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get('TRITON_INTERPRET') == '1'


# torch.compile cannot trace into these two.
@torch.compiler.assume_constant_result
@functools.cache
def _triton_version() -> tuple[int, int]:
    import triton

    major, minor = triton.__version__.split('.')[:2]
    return int(major), int(minor)


@torch.compiler.assume_constant_result
def _capability(device: torch.device) -> tuple[int, int]:
    """Compute capability; (0, 0) for a CPU, in the interpreter."""
    return torch.cuda.get_device_capability(device) if device.type == 'cuda' else (0, 0)


# ------------------------------------------------------------------------------ launches


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
    major, _ = _capability(q.device)
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
            PRECISION='tf32' if _tf32_allowed() else 'ieee',
            UPCAST=q.dtype == torch.bfloat16 and is_interpreted(),
            ROTATED=rotated,
            num_warps=sizes.num_warps,
            num_stages=sizes.num_stages,
            maxnreg=sizes.max_registers,
            **options,
        )


def _strides(*tensors: Tensor) -> list[int]:
    """Of the batch, head and token axes."""
    return [stride for x in tensors for stride in x.stride()[:3]]


def readable(x: Tensor) -> Tensor:
    """The tensor, or a copy that kernels can index: last stride 1, 32-bit offsets in a head."""
    fits = x.shape[-2] * x.stride(-2) < 2**31
    return x if x.stride(-1) == 1 and fits else x.contiguous()


def _empty(x: Tensor) -> Tensor:
    """Like ``x`` ``[B, heads, N, d]``, in the memory order ``[B, N, heads, d]``."""
    batch_size, num_heads, num_tokens, head_dim = x.shape
    return x.new_empty(batch_size, num_tokens, num_heads, head_dim).transpose(1, 2)


def on_device(device: torch.device) -> AbstractContextManager:
    """Make a device current: Triton launches there, wherever its tensors are."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def _tf32_allowed() -> bool:
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):  # torch 2.9
        return matmul.fp32_precision == 'tf32'
    return matmul.allow_tf32


# ------------------------------------------------------------------------------ operators


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
    out = _empty(q)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    _launch(
        'forward',
        q,
        [q, k, v, variance, alpha, correlation, out, lse],
        [*_strides(q, k, v), *_gaussian_strides(variance, alpha, correlation), *_strides(out)],
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
    d_q, d_k, d_v = _empty(q), _empty(k), _empty(v)
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
        [*_strides(q, k, v), *_gaussian_strides(*gaussians), *_strides(out, d_out, d_q)],
        rotated,
        geometry,
        scale,
    )
    _launch(
        'backward_keys',
        q,
        [q, k, v, lse, table, d_out, d_k, d_v],
        [*_strides(q, k, v, d_out, d_k, d_v)],
        rotated,
        geometry,
        scale,
    )
    return [d_q, d_k, d_v, *d_gaussians]


def _gaussian_strides(
    variance: Tensor, alpha: Tensor, correlation: Tensor | None
) -> list[int | None]:
    of_correlation = [None] * 3 if correlation is None else correlation.stride()
    return [*variance.stride(), *alpha.stride(), *of_correlation]


def fake_forward(q, *_):
    return _empty(q), q.new_empty(q.shape[:3], dtype=torch.float32)


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


def fake_backward(q, k, v, variance, alpha, *_):
    d_variance, d_alpha = variance.new_empty(variance.shape), alpha.new_empty(alpha.shape)
    return _empty(q), _empty(k), _empty(v), d_variance, d_alpha


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
