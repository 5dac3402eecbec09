"""Attention layers of timm's EVA and BEiT families with a Gaussian bias: also CLIP, DINOv2 and
DINOv3, SigLIP, PE and others that timm builds from them.
"""

from typing import Any

from timm.models import beit, eva
from torch import Tensor, cat
from torch.nn import functional as F

from .gaussian_attention import GaussianAugmentation, RotaryAugmentation

__all__ = ['GaussianAugmentedBeitAttention', 'GaussianAugmentedEvaAttention']


def _project(attn: Any, x: Tensor) -> Tensor:
    """Queries, keys and values, where keys have no bias to learn."""
    if attn.q_bias is None:
        return attn.qkv(x)
    bias = cat((attn.q_bias, attn.k_bias, attn.v_bias))
    if attn.qkv_bias_separate:
        return attn.qkv(x) + bias
    return F.linear(x, attn.qkv.weight, bias)


class GaussianAugmentedEvaAttention(RotaryAugmentation, eva.EvaAttention):
    """timm's ``EvaAttention`` plus GAug, which reads the query before it is rotated.

    Made by :meth:`adopt`; the only new keys are ``gaug.*``.
    """

    HOST = eva.EvaAttention

    def _head_dim(self) -> int:
        return self.head_dim

    def _qkv(self, x: Tensor) -> Tensor:
        if self.qkv is None:
            return cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        return _project(self, x)


class GaussianAugmentedBeitAttention(GaussianAugmentation, beit.Attention):
    """timm's BEiT ``Attention`` plus GAug, beside a relative position bias where there is one.

    Made by :meth:`adopt`; the only new keys are ``gaug.*``.
    """

    HOST = beit.Attention

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, patches row-major after the prefix tokens.
            shared_rel_pos_bias: of all layers, broadcastable to ``[B, heads, N, N]``.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid or the relative position bias.
        """
        q, k, v = self._split_heads(_project(self, x))
        bias = shared_rel_pos_bias
        if self.relative_position_bias_table is not None:
            own = self._get_rel_pos_bias()
            bias = own if bias is None else own + bias
        return self.proj_drop(self.proj(self._attend(q, k, v, self._grid(x), bias)))
