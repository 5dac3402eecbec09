"""Gaussian attention for CPUs, on a chunk of queries at a time, whose bias fits into the caches.

No tensor of N×N is kept for the backward pass, which computes the attention weights again. The
bias and the gradients of its parameters are in :mod:`.chunked_bias`.
"""

import math
import threading
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ..geometry import Geometry
from .chunked_bias import chunked_bias, chunked_gradients

__all__ = ['chunked_attention', 'why_not']


class _Chunk(NamedTuple):
    """How much of the attention is done at a time."""

    logits_per_thread: int
    min_queries: int  #: with fewer, SDPA's and BLAS's kernels are slow
    splits_heads: bool  #: whether one image is split by heads first, and then by queries


#: The mask of a chunk stays in the L3 cache. Chunks for the L2 caches are read faster, but on small
#: images the larger number of steps costs more than that. A chunk has all heads: SDPA runs blocks
#: of queries in parallel, and one head has too few of them.
_FORWARD = _Chunk(2**19, 320, splits_heads=False)
#: Two tensors, logits and their gradients, so the memory is that of the forward pass. All threads
#: share one product, so many queries of one head are faster than few queries of all heads.
_BACKWARD = _Chunk(2**18, 256, splits_heads=True)
#: The workspace that is kept: rotated Gaussians have a third tensor in the backward pass.
_KEPT_PER_THREAD = 3 * _BACKWARD.logits_per_thread


def chunked_attention(
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
    """See :func:`locat_mm.ops.gaussian_attention`. Differentiable once, not twice."""
    assert dropout_p == 0.0
    if attn_bias is not None:
        attn_bias = _as_additive(attn_bias, q)
    # Cast outside of the function, so that autograd casts the gradients back.
    if correlation is not None:
        correlation = correlation.to(q.dtype)
    inputs = q, k, v, variance.to(q.dtype), alpha.to(q.dtype), correlation, attn_bias
    if not torch.is_grad_enabled():  # autograd costs time that counts on a small image
        return _forward(*inputs, geometry, scale)
    return _ChunkedAttention.apply(*inputs, geometry, scale)


def why_not(q: Tensor, attn_bias: Tensor | None = None, dropout_p: float = 0.0) -> str | None:
    """The reason why :func:`chunked_attention` cannot run such an input, or None."""
    if q.device.type != 'cpu':
        return f'it is for the CPU, q is on {q.device.type}'
    if q.dtype not in (torch.float32, torch.float64):
        return f'it computes in float32 and float64, got {q.dtype}'
    if dropout_p > 0:
        return f'it has no dropout, got dropout_p={dropout_p}'
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return 'a compiler cannot look into it'
    return None


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    correlation: Tensor | None,
    attn_bias: Tensor | None,
    geometry: Geometry,
    scale: float,
) -> Tensor:
    prefix = geometry.num_prefix_tokens
    batch, heads, num_tokens, head_dim = q.shape
    gaussians = chunked_bias(variance, alpha, correlation, geometry)
    out, buffer = None, None
    for images, _, queries in _chunks(batch, heads, num_tokens, attn_bias, _FORWARD):
        shape = (_length(images), heads, _length(queries), num_tokens)
        whole = shape[0] == batch and shape[2] == num_tokens  # small images: fewer steps
        if buffer is None:
            buffer = _workspace(math.prod(shape), q.dtype)
        bias = buffer[: math.prod(shape)].view(shape)
        before, patches = _patches(queries, prefix)
        on_grid = bias[:, :, before:, prefix:].view(*shape[:2], -1, *geometry.grid_size)
        gaussians.write(bias, on_grid, None if whole else (images, slice(None), patches))
        if prefix:  # after the patches, whose cache lines are loaded
            bias[..., :prefix].zero_()
        if before:
            bias[:, :, :before].zero_()
        if attn_bias is not None:
            part = _part(attn_bias, images, slice(None), queries)
            bias.unflatten(0, (-1, part.shape[0])).add_(part)
        if whole:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        if out is None:
            # Tokens before heads in memory, so that merging the heads is a view.
            out = q.new_empty(batch, num_tokens, heads, head_dim).transpose(1, 2)
        out[images, :, queries] = F.scaled_dot_product_attention(
            q[images, :, queries], k[images], v[images], attn_mask=bias, scale=scale
        )
    return torch.empty_like(q) if out is None else out  # None: an empty batch has no chunk


class _ChunkedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        *tensors, geometry, scale = inputs
        ctx.save_for_backward(*tensors)
        ctx.geometry, ctx.scale = geometry, scale
        return _forward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        q, k, v, variance, alpha, correlation, attn_bias = ctx.saved_tensors
        geometry, scale = ctx.geometry, ctx.scale
        grid_size, prefix = geometry.grid_size, geometry.num_prefix_tokens
        batch, heads, num_tokens, _ = q.shape
        gaussians = chunked_gradients(variance, alpha, correlation, geometry)
        num_buffers = 2 + gaussians.num_buffers  # weights, gradients, and the bias's own
        grad_q, grad_k, grad_v = q.new_empty(3, *q.shape).unbind(0)
        hidden, grad_bias = None, None
        if attn_bias is not None:
            # As in the forward pass, a query that sees no key has weights 0, not NaN.
            hidden = attn_bias.amax(-1, keepdim=True) == -math.inf
            hidden = hidden if hidden.any() else None
            grad_bias = torch.zeros_like(attn_bias) if ctx.needs_input_grad[6] else None
        buffer = None
        for chunk in _chunks(batch, heads, num_tokens, attn_bias, _BACKWARD):
            images, of_heads, queries = chunk
            # BLAS takes one batch axis. A chunk has all queries or one image, so the gradients are
            # views; the copies of inputs are small compared with the logits.
            q_, grad_out_, grad_q_ = (x[chunk].flatten(0, 1) for x in (q, grad_out, grad_q))
            k_, v_, grad_k_, grad_v_ = (
                x[images, of_heads].flatten(0, 1) for x in (k, v, grad_k, grad_v)
            )
            shape = (*q_.shape[:2], num_tokens)
            if buffer is None:
                buffer = _workspace(num_buffers * math.prod(shape), q.dtype)
            weights, grad = buffer[: 2 * math.prod(shape)].view(2, *shape).unbind(0)
            own = buffer[2 * math.prod(shape) :]
            before, patches = _patches(queries, prefix)
            first = images.start * heads + of_heads.start
            of_chunk = slice(first, first + shape[0]), patches

            torch.baddbmm(weights, q_, k_.mT, beta=0, alpha=scale, out=weights)
            gaussians.add(weights[:, before:, prefix:].unflatten(-1, grid_size), of_chunk, own)
            if attn_bias is not None:
                part = _part(attn_bias, *chunk)
                per_part = -1, part.shape[0], _length(of_heads), *shape[1:]
                weights.view(per_part).add_(part)
            torch.softmax(weights, -1, out=weights)
            if hidden is not None:
                weights.view(per_part).masked_fill_(_part(hidden, *chunk), 0)
            later = float(queries.start > 0)  # the first queries overwrite uninitialised memory
            torch.baddbmm(grad_v_, weights.mT, grad_out_, beta=later, out=grad_v_)
            torch.bmm(grad_out_, v_.mT, out=grad)
            torch._softmax_backward_data(grad, weights, -1, grad.dtype, grad_input=grad)
            torch.baddbmm(grad_q_, grad, k_, beta=0, alpha=scale, out=grad_q_)
            torch.baddbmm(grad_k_, grad.mT, q_, beta=later, alpha=scale, out=grad_k_)
            if grad_bias is not None:
                part = _part(grad_bias, *chunk)
                part += grad.view(per_part).sum(0).sum_to_size(part.shape)
            gaussians.reduce(grad[:, before:, prefix:].unflatten(-1, grid_size), of_chunk, own)
        return grad_q, grad_k, grad_v, *gaussians.gradients(), grad_bias, None, None


def _chunks(
    batch: int, heads: int, num_tokens: int, attn_bias: Tensor | None, chunk: _Chunk
) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of images, heads and queries: whole images, or some heads or queries of one image."""
    budget = chunk.logits_per_thread * torch.get_num_threads()
    period = 1 if attn_bias is None else attn_bias.shape[0]
    span = batch
    num_images = min(batch, max(1, budget // (heads * num_tokens**2)))
    num_heads, num_queries = heads, num_tokens
    if num_images == 1:
        if chunk.splits_heads:
            wanted = min(heads, max(1, budget // num_tokens**2))
            num_heads = math.ceil(heads / math.ceil(heads / wanted))
        wanted = max(chunk.min_queries, budget // (num_heads * num_tokens))
        num_queries = math.ceil(num_tokens / max(1, num_tokens // wanted))
    # A chunk holds a multiple of the bias's windows, or a part of them.
    if num_images >= period:
        num_images -= num_images % period
    else:
        span = period
    for start in range(0, batch, span):
        for first in range(start, start + span, num_images):
            images = slice(first, min(first + num_images, start + span))
            for head in range(0, heads, num_heads):
                of_heads = slice(head, min(head + num_heads, heads))
                for query in range(0, num_tokens, num_queries):
                    yield images, of_heads, slice(query, min(query + num_queries, num_tokens))


class _Workspaces(threading.local):
    def __init__(self) -> None:
        self.by_dtype: dict[torch.dtype, Tensor] = {}


_workspaces = _Workspaces()


def _workspace(numel: int, dtype: torch.dtype) -> Tensor:
    """Memory for the logits of a chunk, kept for the next layer.

    The allocator would return it to the system, and page faults in every layer cost more than the
    writes. Chunks of usual size are kept: up to 3 MiB in float32 for each thread of PyTorch.
    """
    if numel > _KEPT_PER_THREAD * torch.get_num_threads():
        return torch.empty(numel, dtype=dtype)
    kept = _workspaces.by_dtype
    if dtype not in kept or kept[dtype].numel() < numel:
        with torch.inference_mode(False):  # inference tensors cannot be written to outside of it
            kept[dtype] = torch.empty(numel, dtype=dtype)
    return kept[dtype]


def _length(part: slice) -> int:
    return part.stop - part.start


def _patches(queries: slice, num_prefix_tokens: int) -> tuple[int, slice]:
    """How many of the queries are prefix tokens, and which patches the others are."""
    before = min(max(num_prefix_tokens - queries.start, 0), _length(queries))
    first = queries.start + before - num_prefix_tokens
    return before, slice(first, first + _length(queries) - before)


def _part(attn_bias: Tensor, images: slice, heads: slice, queries: slice) -> Tensor:
    """The part of ``[A, heads or 1, N, N]`` for a chunk; its first axis divides the chunk's."""
    period = attn_bias.shape[0]
    of_period = slice(None)
    if _length(images) < period:
        first = images.start % period
        of_period = slice(first, first + _length(images))
    return attn_bias[of_period, heads if attn_bias.shape[1] > 1 else slice(None), queries]


def _as_additive(attn_bias: Tensor, q: Tensor) -> Tensor:
    """A bias or mask as ``[A, heads or 1, N, N]`` in the dtype of q."""
    if attn_bias.dtype == torch.bool:
        attn_bias = torch.zeros_like(attn_bias, dtype=q.dtype).masked_fill(~attn_bias, -math.inf)
    num_tokens = q.shape[-2]
    attn_bias = attn_bias.reshape((1,) * (4 - attn_bias.ndim) + attn_bias.shape)
    return attn_bias.to(q.dtype).expand(-1, -1, num_tokens, num_tokens)
