"""From queries to their Gaussians: the variance and the strength of GAug (arXiv 2603.04892), and
the correlation of rotated ones.

The product is small, but float32 copies of all queries cost a GPU more than the Gaussian bias does.
There a Triton kernel reads the queries once.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from .backends.triton import why_not
from .backends.triton_parameters import rotated_triton_parameters, triton_parameters

__all__ = ['MAX_CORRELATION', 'gaussian_parameters']

#: Limit of the correlation: axes of a kernel of equal variances are at most 6.2 times as long.
MAX_CORRELATION = 0.95


def gaussian_parameters(
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    max_variance: float,
    num_prefix_tokens: int = 0,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """``max_variance · sigmoid(l₀₁)``, ``softplus(l₂)`` and ``MAX_CORRELATION · tanh(l₃)`` of
    ``l = q weightᵀ + bias``.

    Computed in float32 for half types.

    Args:
        q: ``[B, heads, N, head_dim]``, prefix tokens first.
        weight: ``[3, head_dim]``: variance along rows, along columns, strength; or
            ``[4, head_dim]``: also the correlation.
        bias: ``[3]`` or ``[4]``.
        max_variance: squared patches.
        num_prefix_tokens: tokens that have no Gaussian.
        backend: ``'triton'`` for the fused kernel; None for the kernel on GPUs where it can run.
            The other backends of :func:`locat_mm.ops.gaussian_attention` have no kernel for this.

    Returns:
        variance ``[B, heads, H·W, 2]`` (rows, columns; squared patches), alpha
        ``[B, heads, H·W]`` (logits) and, with four rows of weights, correlation
        ``[B, heads, H·W]`` of the N − num_prefix_tokens patch queries; float32, or float64 for
        float64 queries.

    Raises:
        ValueError: if ``backend`` is ``'triton'`` and the kernel cannot run.
    """
    if backend == 'triton' or (backend is None and q.is_cuda):
        reason = why_not(q)
        if reason is None:
            tensors = q, weight.float(), bias.float()
            if len(weight) == 3:
                return triton_parameters(*tensors, max_variance, num_prefix_tokens)
            return rotated_triton_parameters(
                *tensors, max_variance, MAX_CORRELATION, num_prefix_tokens
            )
        if backend == 'triton':
            raise ValueError(f"backend 'triton' cannot run: {reason}")
    with _no_autocast(q.device.type):
        dtype = q.dtype if q.dtype == torch.float64 else torch.float32
        patches = q[:, :, num_prefix_tokens:].to(dtype)
        weight, bias = weight.to(dtype), bias.to(dtype)
        if torch.compiler.is_exporting():
            # Contiguous results: the order of other strides would depend on the batch size.
            variance = max_variance * torch.sigmoid(F.linear(patches, weight[:2], bias[:2]))
            rest = [
                F.linear(patches, w[None], b[None])
                for w, b in zip(weight[2:], bias[2:], strict=True)
            ]
            rest = [x.squeeze(-1) for x in rest]
        else:
            logits = _logits(patches, weight, bias)
            variance = (max_variance * torch.sigmoid(logits[:2])).movedim(0, -1)
            rest = [logits[row] for row in range(2, len(weight))]
        alpha = F.softplus(rest[0])
        if len(rest) == 1:
            return variance, alpha
        return variance, alpha, MAX_CORRELATION * torch.tanh(rest[1])


def _logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``weight xᵀ + bias``: ``[..., head_dim]`` to ``[3 or 4, ...]``, each logit apart.

    The elementwise steps that follow are faster in this layout, and a product with few rows is
    faster than one with few columns.
    """
    if torch.is_grad_enabled():
        return _Logits.apply(x, weight, bias)
    return _project(x, weight, bias)  # autograd costs time that counts on a small image


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    logits = torch.addmm(bias[:, None], weight, x.reshape(-1, x.shape[-1]).T)
    return logits.view(len(weight), *x.shape[:-1])


class _Logits(torch.autograd.Function):
    """:func:`_project` with gradients. The input is copied, and copied again in the backward pass:
    keeping the copy would take as much memory as the queries.
    """

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _project(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.reshape(len(weight), -1)
        grad_x = (grad.T @ weight).view(x.shape) if ctx.needs_input_grad[0] else None
        return grad_x, grad @ x.reshape(-1, x.shape[-1]), grad.sum(1)


def _no_autocast(device_type: str) -> AbstractContextManager:
    # The meta device, on which FLOPs are counted, has no autocast.
    if device_type == 'meta' or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
