"""Patch representation refinement (arXiv 2603.04892, PRR): ``x⁺ = softmax(x xᵀ/√d) x``."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ['refine_patches']


def refine_patches(x: Tensor, num_heads: int) -> Tensor:
    """Parameter-free multi-head self-attention of tokens to themselves.

    Args:
        x: tokens ``[B, N, C]``.
        num_heads: heads; each attends within its own C / num_heads channels.

    Returns:
        Refined tokens ``[B, N, C]``.

    Raises:
        ValueError: if C is not divisible by ``num_heads``.
    """
    batch, num_tokens, channels = x.shape
    if channels % num_heads:
        raise ValueError(f'{channels} channels are not divisible by num_heads={num_heads}')
    heads = x.reshape(batch, num_tokens, num_heads, -1).transpose(1, 2)  # [B, heads, N, d]
    heads = F.scaled_dot_product_attention(heads, heads, heads)
    return heads.transpose(1, 2).reshape(batch, num_tokens, channels)
