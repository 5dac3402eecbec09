"""Triton kernels of :mod:`.gaussian_parameters`; import them only where Triton is installed.

A program takes a block of queries of one head; blocks of one head lie next to each other. Sums are
over one tile or over parts that the host adds up: no atomics.
"""

import triton
import triton.language as tl

from .triton_kernels import _load_tokens, _store_tokens

__all__ = ['parameters_backward_kernel', 'parameters_forward_kernel']

_PLAIN_INTS = ['num_heads', 'num_tokens', 'num_prefix']


@triton.jit
def _where(num_tokens, num_heads, BLOCK: tl.constexpr):
    """Batch, head and tokens of this program."""
    num_blocks = tl.cdiv(num_tokens, BLOCK)
    batch_head = (tl.program_id(0) // num_blocks).to(tl.int64)
    tokens = (tl.program_id(0) % num_blocks) * BLOCK + tl.arange(0, BLOCK)
    return batch_head // num_heads, batch_head % num_heads, batch_head, tokens


@triton.jit
def _row(weight, i: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    dim = tl.arange(0, BLOCK_DIM)
    return tl.load(weight + i * DIM + dim, mask=dim < DIM, other=0.0)[None, :]


@triton.jit
def _logits(q, weight, bias, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """The three logits ``[BLOCK]`` of float32 queries."""
    y = tl.sum(q * _row(weight, 0, DIM, BLOCK_DIM), 1) + tl.load(bias)
    x = tl.sum(q * _row(weight, 1, DIM, BLOCK_DIM), 1) + tl.load(bias + 1)
    strength = tl.sum(q * _row(weight, 2, DIM, BLOCK_DIM), 1) + tl.load(bias + 2)
    return y, x, strength


@triton.jit
def _tilt_logit(q, weight, bias, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    return tl.sum(q * _row(weight, 3, DIM, BLOCK_DIM), 1) + tl.load(bias + 3)


@triton.jit
def _tanh(x):
    # Near 0 the difference of two sigmoids would lose digits: (1 - u) / (1 + u), u = e^(-2|x|).
    u = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - u) / (1.0 + u)
    series = tl.abs(x) * (1.0 - x * x * (1.0 / 3.0 - x * x * (2.0 / 15.0)))
    size = tl.where(tl.abs(x) < 0.05, series, size)
    return tl.where(x < 0, -size, size)


@triton.jit
def _softplus(x):
    # log1p: the rounding of 1 + u is divided out again.
    u = tl.exp(-tl.abs(x))
    one_plus = 1.0 + u
    rounded = one_plus - 1.0
    log1p = tl.where(rounded == 0, u, tl.log(one_plus) * (u / tl.where(rounded == 0, 1.0, rounded)))
    return tl.maximum(x, 0.0) + log1p


@triton.jit(do_not_specialize=_PLAIN_INTS)
def parameters_forward_kernel(
    q, weight, bias, variance, alpha, correlation, q_b, q_h, q_n, num_heads, num_tokens,
    num_prefix, max_variance, max_correlation, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK: tl.constexpr, UPCAST: tl.constexpr, ROTATED: tl.constexpr,
):  # fmt: skip
    """``variance`` ``[B, heads, H·W, 2]``, ``alpha`` and, with ROTATED, ``correlation``
    ``[B, heads, H·W]``, all float32.
    """
    batch, head, batch_head, tokens = _where(num_tokens, num_heads, BLOCK)
    q += batch * q_b + head * q_h
    inside = tokens < num_tokens
    q_tile = _load_tokens(q, tokens, inside, q_n, True, DIM, BLOCK_DIM, UPCAST).to(tl.float32)
    y, x, strength = _logits(q_tile, weight, bias, DIM, BLOCK_DIM)
    patch = tokens - num_prefix
    spatial = (patch >= 0) & inside
    at = batch_head * (num_tokens - num_prefix) + patch
    tl.store(variance + 2 * at, max_variance * tl.sigmoid(y), mask=spatial)
    tl.store(variance + 2 * at + 1, max_variance * tl.sigmoid(x), mask=spatial)
    tl.store(alpha + at, _softplus(strength), mask=spatial)
    if ROTATED:
        tilt = _tilt_logit(q_tile, weight, bias, DIM, BLOCK_DIM)
        tl.store(correlation + at, max_correlation * _tanh(tilt), mask=spatial)


@triton.jit(do_not_specialize=_PLAIN_INTS)
def parameters_backward_kernel(
    q, weight, bias, grad_variance, grad_alpha, grad_correlation, grad_q, parts,
    q_b, q_h, q_n, dq_b, dq_h, dq_n, num_heads, num_tokens, num_prefix, max_variance,
    max_correlation, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr,
    UPCAST: tl.constexpr, ROTATED: tl.constexpr,
):  # fmt: skip
    """``grad_q``, and this program's part ``[3, DIM + 1]``, with ROTATED ``[4, DIM + 1]``, of the
    gradients of weight and bias.
    """
    batch, head, batch_head, tokens = _where(num_tokens, num_heads, BLOCK)
    q += batch * q_b + head * q_h
    grad_q += batch * dq_b + head * dq_h
    inside = tokens < num_tokens
    q_tile = _load_tokens(q, tokens, inside, q_n, True, DIM, BLOCK_DIM, UPCAST).to(tl.float32)
    y, x, strength = _logits(q_tile, weight, bias, DIM, BLOCK_DIM)
    patch = tokens - num_prefix
    spatial = (patch >= 0) & inside
    at = batch_head * (num_tokens - num_prefix) + patch
    y = max_variance * tl.sigmoid(y) * tl.sigmoid(-y)
    x = max_variance * tl.sigmoid(x) * tl.sigmoid(-x)
    y *= tl.load(grad_variance + 2 * at, mask=spatial, other=0.0)
    x *= tl.load(grad_variance + 2 * at + 1, mask=spatial, other=0.0)
    strength = tl.sigmoid(strength) * tl.load(grad_alpha + at, mask=spatial, other=0.0)
    dq_tile = y[:, None] * _row(weight, 0, DIM, BLOCK_DIM)
    dq_tile += x[:, None] * _row(weight, 1, DIM, BLOCK_DIM)
    dq_tile += strength[:, None] * _row(weight, 2, DIM, BLOCK_DIM)
    if ROTATED:
        tilt = _tanh(_tilt_logit(q_tile, weight, bias, DIM, BLOCK_DIM))
        tilt = max_correlation * (1.0 - tilt) * (1.0 + tilt)
        tilt *= tl.load(grad_correlation + at, mask=spatial, other=0.0)
        dq_tile += tilt[:, None] * _row(weight, 3, DIM, BLOCK_DIM)
    _store_tokens(grad_q, dq_tile, tokens, inside, dq_n, DIM, BLOCK_DIM, UPCAST)

    num_rows: tl.constexpr = 4 if ROTATED else 3
    parts += tl.program_id(0).to(tl.int64) * (num_rows * (DIM + 1))
    _store_part(parts, y, q_tile, DIM, BLOCK_DIM)
    _store_part(parts + (DIM + 1), x, q_tile, DIM, BLOCK_DIM)
    _store_part(parts + 2 * (DIM + 1), strength, q_tile, DIM, BLOCK_DIM)
    if ROTATED:
        _store_part(parts + 3 * (DIM + 1), tilt, q_tile, DIM, BLOCK_DIM)


@triton.jit
def _store_part(part, grad_logit, q_tile, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    dim = tl.arange(0, BLOCK_DIM)
    tl.store(part + dim, tl.sum(grad_logit[:, None] * q_tile, 0), mask=dim < DIM)
    tl.store(part + DIM, tl.sum(grad_logit, 0))
