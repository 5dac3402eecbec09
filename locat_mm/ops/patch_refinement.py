"""Patch representation refinement (arXiv 2603.04892, PRR): ``x⁺ = softmax(x xᵀ/√d) x``."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ['refine_patches']


def refine_patches(x: Tensor, num_heads: int, num_refined: int | None = None) -> Tensor:
    """Parameter-free multi-head self-attention of tokens to themselves.

    Args:
        x: tokens ``[B, N, C]``.
        num_heads: heads; each attends within its own C / num_heads channels.
        num_refined: refine only that many tokens from the front, all that a [CLS] readout needs;
            they attend to all tokens. None: all.

    Returns:
        Refined tokens ``[B, N, C]``, or ``[B, num_refined, C]``.

    Raises:
        ValueError: if C is not divisible by ``num_heads``, or N is less than ``num_refined``.
    """
    batch, num_tokens, channels = x.shape
    if channels % num_heads:
        raise ValueError(f'{channels} channels are not divisible by num_heads={num_heads}')
    if num_refined is not None and not 0 < num_refined <= num_tokens:
        raise ValueError(f'num_refined={num_refined} of {num_tokens} tokens')
    heads = x.reshape(batch, num_tokens, num_heads, -1).transpose(1, 2)  # [B, heads, N, d]
    queries = heads[:, :, :num_refined]
    refined = F.scaled_dot_product_attention(queries, heads, heads)
    return refined.transpose(1, 2).flatten(2)
