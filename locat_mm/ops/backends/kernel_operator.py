"""Turns functions that launch kernels into differentiable operators of torch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ['kernel_operator']


def kernel_operator(
    name: str,
    forward: Callable[..., tuple[Tensor, ...]],
    fake_forward: Callable[..., tuple[Tensor, ...]],
    backward: Callable[..., tuple[Tensor, ...]],
    fake_backward: Callable[..., tuple[Tensor, ...]],
    num_tensors: int,
    aux_outputs: int = 0,
) -> Callable[..., tuple[Tensor, ...]]:
    """An operator, differentiable once, from a pair of functions that launch kernels.

    ``torch.compile`` gets a custom operator, which it does not trace into. Eager mode gets a plain
    autograd.Function: dispatching a custom operator takes ten times as long, more than the kernels
    of a small image.

    Args:
        name: registered as ``locat_mm::name`` and ``locat_mm::name_backward``.
        forward: ``(*tensors, *constants)`` to a tuple of tensors.
        fake_forward: the same without values, for tracing.
        backward: ``(*tensors, *outputs if aux_outputs else (), *gradients, *constants)`` to the
            gradients of the tensors.
        fake_backward: the same without values.
        num_tensors: how many of the arguments are tensors.
        aux_outputs: how many of the last outputs are only for the backward pass. All outputs are
            then kept for it.

    Returns:
        a function with the signature of ``forward``.
    """
    opaque = torch.library.custom_op(f'locat_mm::{name}', forward, mutates_args=())
    opaque_backward = torch.library.custom_op(
        f'locat_mm::{name}_backward', backward, mutates_args=()
    )
    opaque.register_fake(fake_forward)
    opaque_backward.register_fake(fake_backward)

    def save(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.constants = tuple(inputs[num_tensors:])
        ctx.save_for_backward(*inputs[:num_tensors], *(output if aux_outputs else ()))
        if aux_outputs:
            ctx.mark_non_differentiable(*output[-aux_outputs:])
            # No zero gradients for these. The other output always has one in a backward pass.
            assert len(output) == aux_outputs + 1
            ctx.set_materialize_grads(False)

    def gradients(run: Callable[..., tuple[Tensor, ...]]) -> Callable:
        def call(ctx: Any, *grads: Tensor) -> tuple:
            used = grads[: len(grads) - aux_outputs]
            found = run(*ctx.saved_tensors, *used, *ctx.constants)
            return *found, *[None] * len(ctx.constants)

        return call

    opaque.register_autograd(gradients(opaque_backward), setup_context=save)

    eager_backward = once_differentiable(gradients(backward))

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(*inputs):
            return forward(*inputs)

        @staticmethod
        def setup_context(ctx, inputs, output):
            save(ctx, inputs, output)

        @staticmethod
        def backward(ctx, *grads):
            return eager_backward(ctx, *grads)

    def call(*inputs: Any) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            return opaque(*inputs)
        return Eager.apply(*inputs)

    return call
