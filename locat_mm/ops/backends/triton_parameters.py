"""Launches of the kernels behind :func:`locat_mm.ops.gaussian_parameters`.

The kernels are in :mod:`.triton_parameter_kernels`, which is imported at the first call.
"""

import math

import torch
from torch import Tensor

from .kernel_operator import kernel_operator
from .triton import is_interpreted, on_device, readable

__all__ = ['triton_parameters']

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


#: ``(q, weight, bias, max_variance, num_prefix_tokens)`` to variance and alpha, differentiable; the
#: arguments as :func:`locat_mm.ops.gaussian_parameters`, in float32 but for q.
triton_parameters = kernel_operator(
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

    q = readable(q)
    batch, heads, num_tokens, head_dim = q.shape
    strides = [stride for x in (q, *outputs[:1]) for stride in x.stride()[:3]]
    grid = (batch * heads * math.ceil(num_tokens / _BLOCK),)
    with on_device(q.device):
        getattr(triton_parameter_kernels, f'parameters_{direction}_kernel')[grid](
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
            UPCAST=q.dtype == torch.bfloat16 and is_interpreted(),
            num_warps=4,
        )
