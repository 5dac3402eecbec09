"""LocAtViT and its plain baselines on timm's ``VisionTransformer`` (arXiv 2603.04892)."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from timm.models.vision_transformer import VisionTransformer

from ...helpers import check_choice
from ...registry import MODELS, register
from .base import TokenBackbone

__all__ = ['LocAtViT']


@register(MODELS)
class LocAtViT(TokenBackbone, VisionTransformer, BaseModule):  # type: ignore[misc]
    """timm's vision transformer with GAug in every attention layer.

    The keys are those of timm and of the authors, so their checkpoints load. With ``gaug=False``
    it is the plain ViT. PRR is a neck
    (:class:`locat_mm.models.PatchRepresentationRefinement`), not a part of the backbone.
    Images may have any size. A side that is no multiple of the patch is zero-padded on the right
    or at the bottom.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or a dict with ``embed_dim``, ``depth`` and
            ``num_heads``.
        img_size: pixels (int or (H, W)) that the position embedding and GAug's reference grid
            are built for.
        patch_size: side of a patch in pixels (int or (H, W)).
        in_channels: channels of the image.
        gaug: add GAug to every attention layer.
        class_token: have a [CLS] token.
        num_registers: register tokens after [CLS].
        pos_embed: ``'learned'`` or ``'none'``.
        drop_path_rate: stochastic depth rate of the last block. It grows linearly from 0.
        out_indices: block or blocks whose output is returned. Negative indices count from the
            end. The blocks after the last one do not run and need no gradient.
        out_type: ``'raw'`` all tokens [B, N, C], ``'cls_token'`` [B, C], ``'featmap'``
            [B, C, H, W], ``'avg_featmap'`` the mean of the patches [B, C]. As in mmpretrain.
        final_norm: apply the final LayerNorm to the last block's output; for
            ``'avg_featmap'`` after the pooling, as in timm. Outputs of other blocks have no norm.
        frozen: no gradients, and eval mode even after ``.train()``.
        attention_backend: see :func:`locat_mm.ops.gaussian_attention`; needs ``gaug``.
        grad_checkpointing: recompute each block in the backward pass to save memory.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=..., prefix=...)`` is
            strict: a file that does not fit is an error.
        alpha_scale: factor of GAug's strength, for decoding with trained weights; needs ``gaug``.
            It is not in the checkpoint.
        kernel: ``'axis'`` for GAug's Gaussians along rows and columns, as in the paper;
            ``'rotated'`` for Gaussians that also learn a correlation, which needs ``gaug``. See
            :class:`locat_mm.layers.GaussianAugment`. A checkpoint without correlations loads into
            it, with equal outputs.

    Raises:
        ValueError: for an unknown arch, out_type, pos_embed, backend or kernel, an index out of
            range, a negative ``alpha_scale``, a width that the heads do not divide, or an image
            smaller than a patch.
        TypeError: if ``arch`` is neither a name nor a dict.
    """

    ARCHS = {
        'tiny': dict(embed_dim=192, depth=12, num_heads=3),
        'small': dict(embed_dim=384, depth=12, num_heads=6),
        'base': dict(embed_dim=768, depth=12, num_heads=12),
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_channels: int = 3,
        gaug: bool = True,
        class_token: bool = True,
        num_registers: int = 0,
        pos_embed: str = 'learned',
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
        check_choice('pos_embed', pos_embed, ('learned', 'none'))
        VisionTransformer.__init__(
            self,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_channels,
            global_pool='avg' if out_type == 'avg_featmap' else '',
            class_token=class_token,
            reg_tokens=num_registers,
            pos_embed='learn' if pos_embed == 'learned' else 'none',
            final_norm=final_norm,
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
