"""mmseg's attention layers, and mmcv's that it builds on, with GAug."""

from typing import Any

from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmseg.models.backbones.beit import BEiTAttention
from mmseg.models.backbones.mae import MAEAttention
from mmseg.models.backbones.swin import WindowMSA
from torch import Tensor
from torch.nn import functional as F

from ..mixins import BEiTGAugMixin, GAugMixin, MMWindowGAugMixin

__all__ = [
    'GaussianAugmentedBEiTAttention',
    'GaussianAugmentedMAEAttention',
    'GaussianAugmentedMultiheadAttention',
    'GaussianAugmentedWindowMSA',
]


class GaussianAugmentedWindowMSA(MMWindowGAugMixin, WindowMSA):
    """mmseg's ``WindowMSA`` plus GAug."""

    HOST = WindowMSA


class GaussianAugmentedBEiTAttention(BEiTGAugMixin, BEiTAttention):
    """mmseg's ``BEiTAttention`` plus GAug."""

    HOST = BEiTAttention


class GaussianAugmentedMAEAttention(BEiTGAugMixin, MAEAttention):
    """mmseg's ``MAEAttention``, which differs from BEiT's in its initialisation, plus GAug."""

    HOST = MAEAttention


class GaussianAugmentedMultiheadAttention(GAugMixin, MultiheadAttention):
    """mmcv's ``MultiheadAttention`` plus GAug, as self-attention over an image's tokens."""

    HOST = MultiheadAttention

    attn: Any
    dropout_layer: Any

    @classmethod
    def check(cls, attn: Any) -> None:
        inner = attn.attn
        if inner.in_proj_weight is None or inner.bias_k is not None or inner.add_zero_attn:
            raise ValueError(
                'GAug supports MultiheadAttention whose queries, keys and values are of one '
                'width, without bias_kv and add_zero_attn'
            )

    def _head_dim(self) -> int:
        return self.attn.head_dim

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: tokens ``[B, N, C]``, or ``[N, B, C]`` unless ``batch_first``; patches
                row-major after the prefix tokens.
            identity: what the result is added to; ``query`` by default.
            key, value, query_pos, key_pos, attn_mask, key_padding_mask: not supported.

        Returns:
            as ``query``.

        Raises:
            ValueError: if N does not fit the grid, or for an argument that is not supported.
        """
        others = dict(
            key=key,
            value=value,
            query_pos=query_pos,
            key_pos=key_pos,
            attn_mask=attn_mask,
            key_padding_mask=key_padding_mask,
        )
        given = [name for name, x in others.items() if x is not None and x is not query]
        if given:
            raise ValueError(f'GAug is for self-attention, got also {", ".join(given)}')
        x = query if self.batch_first else query.transpose(0, 1)
        inner = self.attn
        q, k, v = self._split_heads(F.linear(x, inner.in_proj_weight, inner.in_proj_bias))
        x = self._attend(
            q, k, v, self._grid(x), scale=inner.head_dim**-0.5, dropout_p=inner.dropout
        )
        x = inner.out_proj(x)
        x = x if self.batch_first else x.transpose(0, 1)
        identity = query if identity is None else identity
        return identity + self.dropout_layer(self.proj_drop(x))
