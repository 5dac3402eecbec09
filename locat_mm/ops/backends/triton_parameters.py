"""Launches of the kernels behind :func:`locat_mm.ops.gaussian_parameters`.

The kernels are in :mod:`.triton_parameter_kernels`, which is imported at the first call.
"""

import math

import torch
from torch import Tensor

from .kernel_operator import kernel_operator
from .triton_launch import is_interpreted, on_device, readable

__all__ = ['rotated_triton_parameters', 'run_backward', 'run_forward', 'triton_parameters']

_BLOCK = 64  # queries of a program


def run_forward(
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    max_variance: float,
    max_correlation: float | None,
    num_prefix_tokens: int,
) -> tuple[Tensor, ...]:
    """``max_correlation`` is None for kernels that are aligned with the axes."""
    outputs = _fake_forward(q, weight, bias, max_variance, num_prefix_tokens)
    if max_correlation is not None:
        outputs = *outputs, torch.empty_like(outputs[1])
    limits = max_variance, max_correlation
    _launch('forward', q, weight, bias, outputs, limits, num_prefix_tokens)
    return outputs


def run_backward(
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    grads: tuple[Tensor, ...],
    max_variance: float,
    max_correlation: float | None,
    num_prefix_tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q (0 for prefix tokens), weight and bias."""
    batch, heads, num_tokens, head_dim = q.shape
    grad_q = q.new_empty(batch, num_tokens, heads, head_dim).transpose(1, 2)
    # A part of every program, added up in a fixed order: equal bits in every run.
    num_programs = batch * heads * math.ceil(num_tokens / _BLOCK)
    parts = weight.new_empty(num_programs, len(weight), head_dim + 1)
    grads = tuple(grad.contiguous() for grad in grads)
    limits = max_variance, max_correlation
    _launch('backward', q, weight, bias, grads, limits, num_prefix_tokens, grad_q, parts)
    grad_weight, grad_bias = parts.sum(0).split((head_dim, 1), dim=1)
    return grad_q, grad_weight.contiguous(), grad_bias.flatten().clone()


def _launch(
    direction: str,
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    gaussians: tuple[Tensor, ...],
    limits: tuple[float, float | None],
    num_prefix_tokens: int,
    *outputs: Tensor,
) -> None:
    """``gaussians`` are written forward, their gradients read backward; all contiguous."""
    from . import triton_parameter_kernels

    q = readable(q)
    batch, heads, num_tokens, head_dim = q.shape
    strides = [stride for x in (q, *outputs[:1]) for stride in x.stride()[:3]]
    rotated = len(gaussians) == 3
    grid = (batch * heads * math.ceil(num_tokens / _BLOCK),)
    with on_device(q.device):
        getattr(triton_parameter_kernels, f'parameters_{direction}_kernel')[grid](
            q,
            weight.contiguous(),
            bias.contiguous(),
            *gaussians,
            *([] if rotated else [None]),
            *outputs,
            *strides,
            heads,
            num_tokens,
            num_prefix_tokens,
            *limits,
            DIM=head_dim,
            BLOCK_DIM=max(16, 1 << (head_dim - 1).bit_length()),
            BLOCK=_BLOCK,
            UPCAST=q.dtype == torch.bfloat16 and is_interpreted(),
            ROTATED=rotated,
            num_warps=4,
            enable_fp_fusion=True,  # from Triton 3.10 on the default is False
        )


def _forward(
    q: Tensor, weight: Tensor, bias: Tensor, max_variance: float, num_prefix_tokens: int
) -> tuple[Tensor, Tensor]:
    variance, alpha = run_forward(q, weight, bias, max_variance, None, num_prefix_tokens)
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
    grads = grad_variance, grad_alpha
    return run_backward(q, weight, bias, grads, max_variance, None, num_prefix_tokens)


def _fake_backward(q, weight, bias, *_):
    batch, heads, num_tokens, head_dim = q.shape
    grad_q = q.new_empty(batch, num_tokens, heads, head_dim).transpose(1, 2)
    return grad_q, torch.empty_like(weight), torch.empty_like(bias)


#: ``(q, weight, bias, max_variance, num_prefix_tokens)`` to variance and alpha, differentiable; the
#: arguments as :func:`locat_mm.ops.gaussian_parameters`, in float32 but for q.
triton_parameters = kernel_operator(
    'gaussian_parameters', _forward, _fake_forward, _backward, _fake_backward, num_tensors=3
)


def _rotated_forward(
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    max_variance: float,
    max_correlation: float,
    num_prefix_tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:
    variance, alpha, correlation = run_forward(
        q, weight, bias, max_variance, max_correlation, num_prefix_tokens
    )
    return variance, alpha, correlation


def _fake_rotated_forward(q, weight, bias, max_variance, max_correlation, num_prefix_tokens):
    variance, alpha = _fake_forward(q, weight, bias, max_variance, num_prefix_tokens)
    return variance, alpha, torch.empty_like(alpha)


def _rotated_backward(
    q: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_variance: Tensor,
    grad_alpha: Tensor,
    grad_correlation: Tensor,
    max_variance: float,
    max_correlation: float,
    num_prefix_tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:
    grads = grad_variance, grad_alpha, grad_correlation
    return run_backward(q, weight, bias, grads, max_variance, max_correlation, num_prefix_tokens)


#: As :func:`triton_parameters`, with ``max_correlation`` after ``max_variance`` and the correlation
#: as a third output; weight and bias have four rows.
rotated_triton_parameters = kernel_operator(
    'rotated_gaussian_parameters',
    _rotated_forward,
    _fake_rotated_forward,
    _rotated_backward,
    _fake_backward,
    num_tensors=3,
)
