"""torch's ``scaled_dot_product_attention`` on a dense bias: runs everywhere, compiles, traces."""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..gaussian_bias import dense_bias
from ..geometry import Geometry

__all__ = ['add_', 'eager_attention', 'why_not']


def eager_attention(
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
    """See :func:`locat_mm.ops.gaussian_attention`."""
    bias = dense_bias(variance, alpha, geometry, correlation)
    if attn_bias is not None:
        add_(bias, attn_bias)
        if q.dtype == torch.float16:
            bias = bias.clamp(max=torch.finfo(q.dtype).max)  # the sum of two may overflow
    # Some CUDA kernels misread a float32 mask with half-precision q.
    bias = bias.to(q.dtype)
    # cuDNN's kernel can return NaN gradients for very negative rows. On CPUs the only fused kernel
    # is FLASH, so nothing is pinned there.
    kernels = (
        sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
        if q.is_cuda
        else nullcontext()
    )
    with kernels:
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=dropout_p, scale=scale
        )
    # ONNX export replaces the attention by smaller steps whose result has other strides if the
    # bias needs a gradient. Views of the result that were traced before would be invalid then.
    is_exporting = torch.compiler.is_exporting()
    return out.clone(memory_format=torch.contiguous_format) if is_exporting else out


def add_(logits: Tensor, attn_bias: Tensor) -> None:
    """Add a bias, or mask, to ``[B, heads, N, N]`` in place: these are the largest tensors.

    Args:
        attn_bias: float (added) or bool (True = attend), broadcastable; its first axis may divide
            B, and is then repeated.
    """
    if attn_bias.ndim == logits.ndim and attn_bias.shape[0] > 1:
        # The windows are the same in every image: no copy of the bias per image. B is not compared,
        # because that would fix an exported model to a range of batch sizes.
        logits = logits.unflatten(0, (-1, attn_bias.shape[0]))
    if attn_bias.dtype == torch.bool:
        logits.masked_fill_(~attn_bias, float('-inf'))
    else:
        logits.add_(attn_bias)


def why_not(q: Tensor, attn_bias: Tensor | None, dropout_p: float) -> None:
    """None: this backend runs every input."""
