"""timm's attention layers with GAug: ViT, RoPE, EVA and BEiT families, and Swin.

timm builds also CLIP, DINOv2, DINOv3, SigLIP, PE and others from these.
"""

from typing import Any

from timm.layers import Attention, AttentionRope
from timm.models import beit, eva
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, cat
from torch.nn import functional as F

from ...registry import MODELS, register
from ..mixins import GAugMixin, RotaryGAugMixin, WindowGAugMixin

__all__ = [
    'GaussianAugmentedAttention',
    'GaussianAugmentedBeitAttention',
    'GaussianAugmentedEvaAttention',
    'GaussianAugmentedRopeAttention',
    'GaussianAugmentedWindowAttention',
]


@register(MODELS)
class GaussianAugmentedAttention(RotaryGAugMixin, Attention):
    """timm's ``Attention`` plus GAug; the only new keys are ``gaug.*``.

    Built from a config it is a layer on tokens ``[B, N, C]`` and a grid; :meth:`convert`
    turns the attention layer of a host into one in place.

    Args:
        dim: channels C.
        num_heads: heads; must divide ``dim``.
        grid_size: patches along (rows, columns) that the layer is built for. Any grid can be
            passed to :meth:`forward`; the variance scales with it.
        num_prefix_tokens: tokens without coordinates in front of the patches.
        backend: see :func:`locat_mm.ops.gaussian_attention`.
        kernel: ``'axis'`` or ``'rotated'``, see :class:`locat_mm.layers.GaussianAugment`.
        kwargs: of timm's ``Attention`` (``qkv_bias``, ``qk_norm``, ``attn_drop``, ...).

    Raises:
        ValueError: if ``dim`` is not divisible by ``num_heads``, or the backend or the kernel is
            unknown.
    """

    HOST = Attention

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        grid_size: tuple[int, int] = (14, 14),
        num_prefix_tokens: int = 0,
        backend: str | None = None,
        kernel: str = 'axis',
        **kwargs,
    ) -> None:
        if 'attn_head_dim' not in kwargs and dim % num_heads:
            raise ValueError(f'dim={dim} is not divisible by num_heads={num_heads}')
        Attention.__init__(self, dim, num_heads, **kwargs)
        self._add_gaug(grid_size, num_prefix_tokens, backend, kernel=kernel)

    def forward(  # type: ignore[override]  # the host's arguments, which have no rope
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        grid_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """
        Args:
            x, attn_mask, is_causal, grid_size: see :class:`RotaryGAugMixin`.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid, or ``is_causal`` is set.
        """
        return super().forward(x, None, attn_mask, is_causal, grid_size)


class GaussianAugmentedRopeAttention(RotaryGAugMixin, AttentionRope):
    """timm's ``AttentionRope`` plus GAug, which reads the query before it is rotated.

    Made by :meth:`convert`; the only new keys are ``gaug.*``.
    """

    HOST = AttentionRope

    @classmethod
    def check(cls, attn: Any) -> None:
        if attn.qkv is None:
            raise ValueError('GAug supports AttentionRope with qkv_fused=True')


class GaussianAugmentedWindowAttention(WindowGAugMixin, WindowAttention):
    """Swin's ``WindowAttention`` plus GAug, which adds to the relative position bias.

    Made by :meth:`convert`; the only new keys are ``gaug.*``.
    """

    HOST = WindowAttention

    def _get_rel_pos_bias(self) -> Tensor:
        return WindowAttention._get_rel_pos_bias(self)


class GaussianAugmentedEvaAttention(RotaryGAugMixin, eva.EvaAttention):
    """timm's ``EvaAttention`` plus GAug, which reads the query before it is rotated.

    Made by :meth:`convert`; the only new keys are ``gaug.*``.
    """

    HOST = eva.EvaAttention

    q_proj: Any
    k_proj: Any
    v_proj: Any

    def _head_dim(self) -> int:
        return self.head_dim

    def _qkv(self, x: Tensor) -> Tensor:
        if self.qkv is None:
            return cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        return _project(self, x)


class GaussianAugmentedBeitAttention(GAugMixin, beit.Attention):
    """timm's BEiT ``Attention`` plus GAug, with a relative position bias or without.

    Made by :meth:`convert`; the only new keys are ``gaug.*``.
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


def _project(attn: Any, x: Tensor) -> Tensor:
    """Queries, keys and values; timm's keys have no bias that is learned."""
    if attn.q_bias is None:
        return attn.qkv(x)
    bias = cat((attn.q_bias, attn.k_bias, attn.v_bias))
    if attn.qkv_bias_separate:
        return attn.qkv(x) + bias
    return F.linear(x, attn.qkv.weight, bias)
