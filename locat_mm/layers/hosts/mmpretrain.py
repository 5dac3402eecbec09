"""mmpretrain's attention layers with GAug."""

from typing import Any

from mmpretrain.models.backbones import vit_sam
from mmpretrain.models.backbones.vit_eva02 import AttentionWithRoPE
from mmpretrain.models.utils.attention import BEiTAttention, MultiheadAttention, WindowMSA
from torch import Tensor, cat

from ..mixins import BEiTGAugMixin, GAugMixin, MMWindowGAugMixin

__all__ = [
    'GaussianAugmentedAttentionWithRoPE',
    'GaussianAugmentedBEiTAttention',
    'GaussianAugmentedMultiheadAttention',
    'GaussianAugmentedSAMAttention',
    'GaussianAugmentedWindowMSA',
]


class GaussianAugmentedWindowMSA(MMWindowGAugMixin, WindowMSA):
    """mmpretrain's ``WindowMSA`` plus GAug."""

    HOST = WindowMSA


class GaussianAugmentedBEiTAttention(BEiTGAugMixin, BEiTAttention):
    """mmpretrain's ``BEiTAttention`` plus GAug."""

    HOST = BEiTAttention


class GaussianAugmentedMultiheadAttention(GAugMixin, MultiheadAttention):
    """mmpretrain's ``MultiheadAttention`` (ViT, DeiT, DeiT III, CLIP) plus GAug."""

    HOST = MultiheadAttention

    head_dims: int
    out_drop: Any
    gamma1: Any

    @classmethod
    def check(cls, attn: Any) -> None:
        if attn.v_shortcut:
            raise ValueError('GAug supports MultiheadAttention with v_shortcut=False')

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, patches row-major after the prefix tokens.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid.
        """
        q, k, v = self._split_heads(self.qkv(x))
        # The host takes this scale whatever qk_scale it was given.
        scale = self.head_dims**-0.5
        x = self._attend(q, k, v, self._grid(x), scale=scale, dropout_p=self.attn_drop)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))


class GaussianAugmentedAttentionWithRoPE(GAugMixin, AttentionWithRoPE):
    """mmpretrain's ``AttentionWithRoPE`` (EVA-02) plus GAug, which reads unrotated queries."""

    HOST = AttentionWithRoPE

    rope: Any
    with_cls_token: bool

    def forward(self, x: Tensor, patch_resolution: tuple[int, int]) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, patches row-major after the prefix tokens.
            patch_resolution: patches along (rows, columns).

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid.
        """
        q, k, v = self._split_heads(self.qkv(x))
        gaussian = self.gaug(q, patch_resolution, self.num_prefix_tokens, self.backend)
        if self.rope:
            q, k = (self._rotate(tokens, patch_resolution).type_as(v) for tokens in (q, k))
        x = self._attend(q, k, v, patch_resolution, gaussian=gaussian)
        return self.proj_drop(self.proj(x))

    def _rotate(self, tokens: Tensor, patch_resolution: tuple[int, int]) -> Tensor:
        prefix, patches = tokens.tensor_split([int(self.with_cls_token)], dim=2)
        return cat((prefix, self.rope(patches, patch_resolution)), dim=2)


class GaussianAugmentedSAMAttention(GAugMixin, vit_sam.Attention):
    """The attention of mmpretrain's ``ViTSAM``, in windows or global, plus GAug."""

    HOST = vit_sam.Attention

    @classmethod
    def check(cls, attn: Any) -> None:
        if not attn.use_rel_pos:
            raise ValueError('GAug supports ViTSAM with use_rel_pos=True')

    @classmethod
    def fixed_grid(cls, attn: Any) -> tuple[int, int]:
        rows, columns = ((len(table) + 1) // 2 for table in (attn.rel_pos_h, attn.rel_pos_w))
        return rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: a map or its windows ``[B, H, W, C]``.

        Returns:
            ``[B, H, W, C]``.
        """
        batch, height, width, _ = x.shape
        q, k, v = self._split_heads(self.qkv(x.flatten(1, 2)))
        bias = None
        if self.use_rel_pos:
            logits = q.new_zeros(batch * self.num_heads, height * width, height * width)
            bias = vit_sam.add_decomposed_rel_pos(
                logits,
                q.flatten(0, 1),
                self.rel_pos_h,
                self.rel_pos_w,
                (height, width),
                (height, width),
            ).unflatten(0, (batch, self.num_heads))
        x = self._attend(q, k, v, (height, width), bias, dropout_p=0.0)
        return self.proj(x).unflatten(1, (height, width))
