"""Multi-head attention with the Gaussian bias of LocAt (arXiv 2603.04892, GAug):
``Z = softmax(q kᵀ·scale + S [+ attn_bias]) v``.
"""

import logging
from collections.abc import Callable
from functools import cache
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import chunked, eager, naive, triton
from .geometry import Geometry, check_shapes

__all__ = ['BACKENDS', 'choose_backend', 'gaussian_attention', 'get_backend']


_logger = logging.getLogger(__name__)


class Backend(NamedTuple):
    """One way to compute the attention."""

    #: ``(q, k, v, variance, alpha, geometry, *, scale, attn_bias, dropout_p, correlation)`` to the
    #: output.
    run: Callable[..., Tensor]
    #: ``(q, attn_bias, dropout_p)`` to the reason why it cannot run such an input, or None.
    why_not: Callable[[Tensor, Tensor | None, float], str | None]


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
    max_sq_distance: float = inf,
    scale: float | None = None,
    attn_bias: Tensor | None = None,
    dropout_p: float = 0.0,
    backend: str | None = None,
    check_values: bool | None = None,
    correlation: Tensor | None = None,
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
        max_sq_distance: upper limit of squared distances along one axis (squared patches).
        scale: factor of ``q kᵀ``; ``head_dim ** -0.5`` by default.
        attn_bias: further additive bias (float) or mask (bool, True = attend), broadcastable
            to ``[B, heads, N, N]``: relative position bias, shift mask. A first axis that divides
            B is repeated: every image has the same windows.
        dropout_p: dropout of the attention weights; the caller passes 0 outside training.
        backend: ``'triton'`` (a fused kernel), ``'chunked'`` (for CPUs, a chunk of the bias at
            a time), ``'eager'`` (scaled_dot_product_attention on a dense bias), ``'naive'`` (the
            formula line by line), or None for the first of :data:`BACKENDS` that can run. See
            docs/backends.md.
        check_values: check that variances are positive and correlations within (-1, 1); on a GPU
            this waits for the device. None: check on the CPU only.
        correlation: ``[B, heads, H·W]`` per patch query, within (-1, 1): the Gaussian is rotated,
            see :func:`locat_mm.ops.gaussian_bias`. None: it is aligned with the axes.

    Returns:
        ``[B, heads, N, head_dim]`` in the dtype of ``q``; under autocast in autocast's.

    Raises:
        ValueError: if the shapes do not fit the grid, a variance is not positive, a correlation
            not within (-1, 1), the backend is unknown or cannot run such an input.
        TypeError: if q, k and v are not of one floating-point dtype.
    """
    if q.ndim != 4 or not q.shape == k.shape == v.shape:
        raise ValueError(
            'q, k and v must be of one shape [B, heads, N, head_dim], got '
            f'{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}'
        )
    geometry = Geometry(*grid_size, num_prefix_tokens, eps, max_sq_distance)
    if q.shape[-2] != num_prefix_tokens + geometry.num_patches or num_prefix_tokens < 0:
        raise ValueError(
            f'{q.shape[-2]} tokens do not fit {num_prefix_tokens} prefix tokens and a grid of '
            f'{grid_size[0]}×{grid_size[1]} = {geometry.num_patches} patches'
        )
    check_shapes(variance, alpha, geometry, q.shape[:2], correlation)
    if attn_bias is not None:
        _check_attn_bias(attn_bias, q)
    q, k, v = _cast(q, k, v)
    if check_values is None:
        check_values = q.device.type == 'cpu' and not torch.compiler.is_compiling()
    if check_values:
        _check_positive(variance)
        if correlation is not None:
            _check_correlation(correlation)
    name = choose_backend(q, attn_bias, dropout_p) if backend is None else backend
    run, why_not = get_backend(name)
    if backend is not None and (reason := why_not(q, attn_bias, dropout_p)) is not None:
        raise ValueError(f'attention backend {backend!r} cannot run: {reason}')
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    options = dict(scale=scale, attn_bias=attn_bias, dropout_p=dropout_p, correlation=correlation)
    return run(q, k, v, variance, alpha, geometry, **options)


def choose_backend(q: Tensor, attn_bias: Tensor | None = None, dropout_p: float = 0.0) -> str:
    """The name of the fastest backend that can run; said once in the log.

    Args:
        q, attn_bias, dropout_p: as for :func:`gaussian_attention`.
    """
    reasons = {}
    for name in BACKENDS:
        reason = BACKENDS[name].why_not(q, attn_bias, dropout_p)
        if reason is None and name == 'triton' and q.device.type == 'cpu':
            reason = 'the interpreter is for tests'
        if reason is None:
            break
        reasons[name] = reason
    if not torch.compiler.is_compiling():
        _log_choice(name, q.device.type, q.dtype, tuple(reasons.items()))
    return name


@cache
def _log_choice(name: str, device: str, dtype: torch.dtype, reasons: tuple) -> None:
    why = ''.join(f'; not {other!r}: {reason}' for other, reason in reasons)
    _logger.info('Gaussian attention in %s on %s: backend %r%s', dtype, device, name, why)


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in BACKENDS:
        raise ValueError(f'unknown attention backend {name!r}; available: {", ".join(BACKENDS)}')
    return BACKENDS[name]


def _cast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As autocast does for scaled_dot_product_attention."""
    if not q.is_floating_point():
        raise TypeError(f'q, k and v must be floating-point, got {q.dtype}')
    device_type = q.device.type
    # The meta device, on which FLOPs are counted, has no autocast.
    autocast = device_type != 'meta' and torch.is_autocast_enabled(device_type)
    if autocast and q.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
        return q.to(dtype), k.to(dtype), v.to(dtype)
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(f'q, k and v must be of one dtype, got {q.dtype}, {k.dtype}, {v.dtype}')
    return q, k, v


def _check_attn_bias(attn_bias: Tensor, q: Tensor) -> None:
    batch, heads, num_tokens, _ = q.shape
    shape = (1,) * (4 - attn_bias.ndim) + tuple(attn_bias.shape)
    if (
        len(shape) != 4
        or (batch % shape[0] if shape[0] else batch)
        or shape[1] not in (1, heads)
        or any(size not in (1, num_tokens) for size in shape[2:])
    ):
        raise ValueError(
            f'attn_bias must broadcast to [B, heads, N, N] = '
            f'{[batch, heads, num_tokens, num_tokens]}, or have a first axis that divides B; got '
            f'shape {tuple(attn_bias.shape)}'
        )


def _check_positive(variance: Tensor) -> None:
    smallest = variance.detach().amin().item() if variance.numel() else 1.0  # NaN stays NaN
    if not smallest > 0:
        raise ValueError(f'variance must be positive, its smallest value is {smallest}')


def _check_correlation(correlation: Tensor) -> None:
    largest = correlation.detach().abs().amax().item() if correlation.numel() else 0.0
    if not largest < 1:
        raise ValueError(f'correlation must be within (-1, 1), its largest size is {largest}')


#: name -> backend, in the order in which ``backend=None`` tries them; a further one is one entry.
BACKENDS: dict[str, Backend] = {
    'chunked': Backend(chunked.chunked_attention, chunked.why_not),
    'triton': Backend(triton.triton_attention, triton.why_not),
    'eager': Backend(eager.eager_attention, eager.why_not),
    'naive': Backend(naive.naive_attention, naive.why_not),
}
