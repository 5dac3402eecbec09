"""From queries to their Gaussians: the variance and the strength of GAug (arXiv 2603.04892).

One small product, but on a GPU the detour over float32 copies of all queries costs more than the
Gaussian bias does; there a Triton kernel reads the queries once.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from . import triton_attention
from .kernel_operator import kernel_operator

__all__ = ['gaussian_parameters']


def gaussian_parameters(
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    max_variance: float,
    num_prefix_tokens: int = 0,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """``max_variance · sigmoid(l₀₁)`` and ``softplus(l₂)`` of ``l = q weightᵀ + bias``.

    Computed in float32 for half types.

    Args:
        q: ``[B, heads, N, head_dim]``, prefix tokens first.
        weight: ``[3, head_dim]``: variance along rows, along columns, strength.
        bias: ``[3]``.
        max_variance: squared patches.
        num_prefix_tokens: tokens that have no Gaussian.
        backend: ``'triton'`` for the fused kernel, None for the same where it can run on a GPU;
            the other backends of :func:`locat_mm.ops.gaussian_attention` have none.

    Returns:
        variance ``[B, heads, H·W, 2]`` (rows, columns; squared patches) and alpha
        ``[B, heads, H·W]`` (logits) of the N − num_prefix_tokens patch queries; float32, or
        float64 for float64 queries.

    Raises:
        ValueError: if the kernel is asked for by name and cannot run.
    """
    reason: str | None = 'it is not asked for'
    if backend == 'triton' or (backend is None and q.is_cuda):
        reason = triton_attention.why_not(q)
    if reason is None:
        variance, alpha = _parameters(
            q, weight.float(), bias.float(), max_variance, num_prefix_tokens
        )
        return variance, alpha
    if backend == 'triton':
        raise ValueError(f"backend 'triton' cannot run: {reason}")
    with _no_autocast(q.device.type):
        dtype = q.dtype if q.dtype == torch.float64 else torch.float32
        patches = q[:, :, num_prefix_tokens:].to(dtype)
        logits = _Logits.apply(patches, weight.to(dtype), bias.to(dtype))
        variance = (max_variance * torch.sigmoid(logits[:2])).movedim(0, -1)
        return variance, F.softplus(logits[2])


class _Logits(torch.autograd.Function):
    """``weight xᵀ + bias``: ``[..., head_dim]`` to ``[3, ...]``, each logit apart.

    So the elementwise steps that follow like it, and a product with three rows is faster than
    one with three columns. What it reads is copied for it, and again in the backward pass:
    keeping the copy would cost as much memory as the queries do.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        logits = torch.addmm(bias[:, None], weight, x.reshape(-1, x.shape[-1]).T)
        return logits.view(3, *x.shape[:-1])

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.reshape(3, -1)
        grad_x = (grad.T @ weight).view(x.shape) if ctx.needs_input_grad[0] else None
        return grad_x, grad @ x.reshape(-1, x.shape[-1]), grad.sum(1)


def _no_autocast(device_type: str) -> AbstractContextManager:
    # The meta device, on which FLOPs are counted, knows no autocast.
    if device_type == 'meta' or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


_BLOCK = 64  # queries of a program


def _forward(
    q: Tensor, weight: Tensor, bias: Tensor, max_variance: float, num_prefix_tokens: int
) -> tuple[Tensor, Tensor]:
    batch, heads, num_tokens, _ = q.shape
    variance = q.new_empty(batch, heads, num_tokens - num_prefix_tokens, 2, dtype=torch.float32)
    alpha = torch.empty_like(variance[..., 0], memory_format=torch.contiguous_format)
    _launch('forward', q, weight, bias, variance, alpha, max_variance, num_prefix_tokens)
    return variance, alpha


def _fake_forward(q, weight, bias, max_variance, num_prefix_tokens):
    shape = (*q.shape[:2], q.shape[2] - num_prefix_tokens)
    return q.new_empty(*shape, 2, dtype=torch.float32), q.new_empty(shape, dtype=torch.float32)


def _backward(
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_variance: Tensor,
    grad_alpha: Tensor,
    max_variance: float,
    num_prefix_tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q (0 for prefix tokens), weight and bias."""
    batch, heads, num_tokens, head_dim = q.shape
    grad_q = q.new_empty(batch, num_tokens, heads, head_dim).transpose(1, 2)
    # A part of every program, added up in a fixed order: equal bits in every run.
    num_programs = batch * heads * math.ceil(num_tokens / _BLOCK)
    parts = weight.new_empty(num_programs, 3, head_dim + 1)
    grads = grad_variance.contiguous(), grad_alpha.contiguous()
    _launch('backward', q, weight, bias, *grads, max_variance, num_prefix_tokens, grad_q, parts)
    grad_weight, grad_bias = parts.sum(0).split((head_dim, 1), dim=1)
    return grad_q, grad_weight.contiguous(), grad_bias.flatten().clone()


def _fake_backward(q, weight, bias, *_):
    batch, heads, num_tokens, head_dim = q.shape
    grad_q = q.new_empty(batch, num_tokens, heads, head_dim).transpose(1, 2)
    return grad_q, torch.empty_like(weight), torch.empty_like(bias)


_parameters = kernel_operator(
    'gaussian_parameters', _forward, _fake_forward, _backward, _fake_backward, num_tensors=3
)


def _launch(
    direction: str,
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    variance: Tensor,
    alpha: Tensor,
    max_variance: float,
    num_prefix_tokens: int,
    *outputs: Tensor,
) -> None:
    """``variance`` and ``alpha`` are written forward, their gradients backward; all contiguous."""
    from . import triton_parameter_kernels

    q = triton_attention.readable(q)
    batch, heads, num_tokens, head_dim = q.shape
    strides = [stride for x in (q, *outputs[:1]) for stride in x.stride()[:3]]
    grid = (batch * heads * math.ceil(num_tokens / _BLOCK),)
    with triton_attention.on_device(q.device):
        getattr(triton_parameter_kernels, f'{direction}_kernel')[grid](
            q,
            weight.contiguous(),
            bias.contiguous(),
            variance,
            alpha,
            *outputs,
            *strides,
            heads,
            num_tokens,
            num_prefix_tokens,
            max_variance,
            DIM=head_dim,
            BLOCK_DIM=max(16, 1 << (head_dim - 1).bit_length()),
            BLOCK=_BLOCK,
            UPCAST=q.dtype == torch.bfloat16 and triton_attention.is_interpreted(),
            num_warps=4,
        )
