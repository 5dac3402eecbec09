"""LocAtRoPEViT and its plain baseline on timm's ``Eva``.

arXiv 2603.04892; mixed rotary embedding: arXiv 2403.13298.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.model import BaseModule
from timm.models.eva import Eva
from torch import Tensor, nn

from ...registry import MODELS, register
from .base import TokenBackbone
from .locat_vit import LocAtViT

__all__ = ['LocAtRoPEViT']


@register(MODELS)
class LocAtRoPEViT(TokenBackbone, Eva, BaseModule):  # type: ignore[misc]
    """A vision transformer with mixed rotary embedding and GAug in every attention layer.

    Each head of each block learns its own rotation frequencies. There is no absolute position
    embedding. GAug reads the query before its rotation. The host is timm's ``Eva`` as in
    ``vit_*_patch16_rope_mixed_224``. The keys are those of timm and of the authors, so their
    checkpoints load. With ``gaug=False`` it is the plain RoPEViT.

    Args:
        arch, img_size, patch_size, in_channels, gaug, class_token, num_registers,
            drop_path_rate, out_indices, out_type, final_norm, frozen, attention_backend,
            grad_checkpointing, init_cfg, alpha_scale, kernel: see :class:`LocAtViT`.
        rope_temperature: base of the random initial frequencies.
        layer_scale: initial value of the layer scale.

    Raises:
        ValueError: as :class:`LocAtViT`; also if the width of a head is not divisible by 4.
        TypeError: if ``arch`` is neither a name nor a dict.
    """

    ARCHS = LocAtViT.ARCHS
    EMBEDDINGS = (*TokenBackbone.EMBEDDINGS, 'rope')

    def __init__(
        self,
        arch: str | dict[str, Any] = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_channels: int = 3,
        gaug: bool = True,
        class_token: bool = True,
        num_registers: int = 0,
        rope_temperature: float = 10.0,
        layer_scale: float = 1e-5,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'cls_token',
        final_norm: bool = True,
        frozen: bool = False,
        attention_backend: str | None = None,
        grad_checkpointing: bool = False,
        init_cfg: dict | list | None = None,
        alpha_scale: float = 1.0,
        kernel: str = 'axis',
    ) -> None:
        arch = self._resolve_arch(arch)
        self._check_options(out_type, gaug, attention_backend, alpha_scale, kernel, class_token)
        head_dim = arch['embed_dim'] // arch['num_heads']
        if head_dim % 4:
            raise ValueError(f'rotary embedding needs {head_dim=} divisible by 4: {arch}')
        pooled = out_type == 'avg_featmap'
        Eva.__init__(
            self,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_channels,
            global_pool='',
            attn_type='rope',
            init_values=layer_scale,
            class_token=class_token,
            num_reg_tokens=num_registers,
            use_abs_pos_emb=False,
            use_rot_pos_emb=True,
            rope_type='mixed',
            rope_temperature=rope_temperature,
            rope_grid_indexing='xy',
            use_post_transformer_norm=final_norm and not pooled,
            use_fc_norm=final_norm and pooled,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            drop_path_rate=drop_path_rate,
            **self.HOST_OPTIONS,
            **arch,
        )
        self._configure(
            gaug,
            attention_backend,
            alpha_scale,
            out_type,
            out_indices,
            frozen,
            grad_checkpointing,
            init_cfg,
            kernel,
        )

    def _embed(self, x: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        x, rope = self._pos_embed(x)  # rope: [blocks, heads, H·W, 2·head_dim]
        assert rope is not None
        return x, [dict(rope=per_block) for per_block in rope]
