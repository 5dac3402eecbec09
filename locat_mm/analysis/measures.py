"""Attention weights and similarities, as functions of tensors."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['attention_weights', 'cls_similarity', 'refinement_weights']


def attention_weights(
    q: Tensor,
    k: Tensor,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """``softmax(q kᵀ·scale + attn_bias)`` in float32; fused attention kernels do not return it.

    With GAug's bias S it is the attention of LocAt (arXiv 2603.04892, GAug).

    Args:
        q, k: ``[..., N, head_dim]``.
        attn_bias: additive, or a mask (bool, True = attend), broadcastable to ``[..., N, N]``.
        scale: ``head_dim ** -0.5`` by default.

    Returns:
        ``[..., N, N]``; each row sums to 1. float64 for float64 queries.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    logits = q.to(dtype) @ k.to(dtype).transpose(-2, -1)
    logits *= q.shape[-1] ** -0.5 if scale is None else scale
    if attn_bias is not None and attn_bias.dtype == torch.bool:
        logits = logits.masked_fill(~attn_bias, float('-inf'))
    elif attn_bias is not None:
        logits = logits + attn_bias
    return logits.softmax(dim=-1)


def cls_similarity(tokens: Tensor, num_prefix_tokens: int, num_class_tokens: int = 1) -> Tensor:
    """Cosine similarity of every patch to [CLS].

    In models trained on image labels alone, the patches of the last layers become similar to [CLS]
    and lose local information. The paper starts from this observation (arXiv 2603.04892).

    Args:
        tokens: ``[..., N, C]``, prefix tokens first, class tokens first of all.
        num_prefix_tokens: tokens in front of the patches.
        num_class_tokens: several class tokens (Jumbo) give their mean similarity.

    Returns:
        ``[..., N - num_prefix_tokens]`` within -1..1; float32 for half types.
    """
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    classes = tokens[..., None, :num_class_tokens, :]
    patches = tokens[..., num_prefix_tokens:, None, :]
    return F.cosine_similarity(patches, classes, dim=-1).mean(dim=-1)


def refinement_weights(tokens: Tensor, num_heads: int, num_refined: int | None = None) -> Tensor:
    """The weights ``softmax(x xᵀ/√d)`` of PRR (arXiv 2603.04892, PRR).

    Args:
        tokens: x, ``[B, N, C]``.
        num_heads: heads; each has C / num_heads = d channels.
        num_refined: number of tokens at the front whose rows are returned; None: all.

    Returns:
        ``[B, heads, num_refined, N]``; each row sums to 1.

    Raises:
        ValueError: if C is not divisible by ``num_heads``.
    """
    if tokens.shape[-1] % num_heads:
        raise ValueError(f'{tokens.shape[-1]} channels are not divisible by {num_heads=}')
    heads = tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # [B, heads, N, d]
    return attention_weights(heads[:, :, :num_refined], heads)
