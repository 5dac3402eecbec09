"""Part op of benchmarks/attention.py: plain attention, each backend of Gaussian attention, PRR."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from attention_cases import PLAIN, PRR, Case
from torch import Tensor
from torch.nn import functional as F

from locat_mm.layers import GaussianAugment
from locat_mm.ops import gaussian_attention, refine_patches

__all__ = ['prepare']


def prepare(case: Case) -> Callable[[], Any]:
    """Build the call that is timed: the output and, for training, the gradients of all inputs."""
    attend, inputs, grad = _set_up(case)
    if case.mode == 'forward':
        return partial(_forward, attend, inputs)
    for x in inputs:
        x.requires_grad_()
    return partial(_forward_backward, attend, inputs, grad)


@torch.inference_mode()
def _forward(attend: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    attend(*inputs)


def _forward_backward(attend: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> None:
    torch.autograd.grad(attend(*inputs), inputs, grad)


def _set_up(case: Case) -> tuple[Callable[..., Tensor], list[Tensor], Tensor]:
    """The function, its inputs and the gradient of its output, with the layout of a ViT."""
    settings: dict[str, Any] = dict(device=case.device, dtype=case.dtype)
    batch_size, heads, num_tokens = case.batch_size, case.num_heads, case.num_tokens
    if case.variant == PRR:
        x, grad = torch.randn(2, batch_size, num_tokens, case.embed_dim, **settings).unbind(0)
        return partial(refine_patches, num_heads=heads), [x], grad
    # In memory the axis of tokens is before that of heads, as in a ViT.
    shape = (batch_size, num_tokens, heads, case.head_dim)
    q, k, v, grad = (torch.randn(shape, **settings).transpose(1, 2) for _ in range(4))
    if case.variant == PLAIN:
        return _plain, [q, k, v], grad
    gaug = GaussianAugment(case.head_dim, case.grid_size)
    patches = (batch_size, heads, num_tokens - 1)
    # Variances from one patch to the whole grid.
    variance = torch.rand(*patches, 2, device=case.device) * gaug.max_variance + 1
    alpha = torch.rand(patches, device=case.device)
    attend = partial(
        gaussian_attention,
        grid_size=case.grid_size,
        num_prefix_tokens=1,
        eps=gaug.eps,
        max_sq_distance=gaug.max_sq_distance,
        backend=case.variant,
        check_values=False,  # as in the layers
    )
    return attend, [q, k, v, variance, alpha], grad


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.is_cuda:
        # scaled_dot_product_attention calls this for FlashAttention. It is called directly because
        # the context that selects it, sdpa_kernel, takes as long as the kernel on few tokens.
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    return F.scaled_dot_product_attention(q, k, v)
