"""What the attention layers of mmpretrain and mmseg have in common, with a Gaussian bias."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .gaussian_attention import GaussianAugmentation, WindowAugmentation

__all__ = ['BEiTAugmentation', 'MMWindowAugmentation']


def _relative_position_bias(attn: Any) -> Tensor:
    """``[1, heads, N, N]``"""
    index = attn.relative_position_index
    return attn.relative_position_bias_table[index.flatten()].T.unflatten(1, index.shape)[None]


class MMWindowAugmentation(WindowAugmentation):
    """GAug for ``WindowMSA``, inside every window."""

    def _get_rel_pos_bias(self) -> Tensor:
        return _relative_position_bias(self)


class BEiTAugmentation(GaussianAugmentation):
    """GAug for ``BEiTAttention``, beside a relative position bias where there is one."""

    def forward(self: Any, x: Tensor, rel_pos_bias: Tensor | None = None) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, patches row-major after the prefix tokens.
            rel_pos_bias: of all layers, ``[heads, N, N]``.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid or the relative position bias.
        """
        if self.bias == 'qv_bias':
            no_bias = torch.zeros_like(self.v_bias)
            qkv = F.linear(x, self.qkv.weight, torch.cat((self.q_bias, no_bias, self.v_bias)))
        else:
            qkv = self.qkv(x)
        q, k, v = self._split_heads(qkv)
        bias = rel_pos_bias
        if self.relative_position_bias_table is not None:
            own = _relative_position_bias(self)
            bias = own if bias is None else own + bias
        return self.proj_drop(self.proj(self._attend(q, k, v, self._grid(x), bias)))
