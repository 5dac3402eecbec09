"""LocAtSwin and its plain baseline on timm's ``SwinTransformer``.

arXiv 2603.04892; Swin: arXiv 2103.14030.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from timm.layers import to_2tuple
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from ...registry import MODELS, register
from .base import HostedBackbone

__all__ = ['LocAtSwin']


@register(MODELS)
class LocAtSwin(HostedBackbone, SwinTransformer, BaseModule):  # type: ignore[misc]
    """timm's Swin transformer with GAug inside every window.

    The Gaussian bias adds to the relative position bias. GAug's reference grid is the window of
    each block. A window is smaller than ``window_size`` on a smaller map. The keys are those of
    timm and of the authors, so their checkpoints load. With ``gaug=False`` it is the plain Swin.
    Images may have any size, unless ``strict_img_size``. A side that is no multiple of the patch
    is zero-padded on the right or at the bottom.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or a dict with ``embed_dim`` (of the first
            stage; each stage doubles it), ``depths`` and ``num_heads`` (per stage).
        img_size: pixels (int or (H, W)) that the windows are built for.
        window_size: side of a window in patches (int or (H, W)).
        strict_img_size: refuse images of another size than ``img_size``.
        out_indices: stage or stages whose output is returned. Negative indices count from the
            end. The stages after the last one do not run and need no gradient.
        out_type: ``'raw'`` all positions [B, H·W, C], ``'featmap'`` [B, C, H, W],
            ``'avg_featmap'`` their mean [B, C].
        final_norm: apply the final LayerNorm to the last stage's output. Outputs of other stages
            have no norm.
        patch_size, in_channels, gaug, drop_path_rate, frozen, attention_backend,
            grad_checkpointing, init_cfg, alpha_scale, kernel: see :class:`LocAtViT`.

    Raises:
        ValueError: for an unknown arch, out_type or backend, an index out of range, ``depths``
            and ``num_heads`` of different lengths, a width that the heads do not divide, an image
            smaller than a patch, or a window below 1.
        TypeError: if ``arch`` is neither a name nor a dict.
    """

    ARCHS = {
        'tiny': dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        'small': dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
        'base': dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    }
    OUT_TYPES = ('raw', 'featmap', 'avg_featmap')
    STAGES = 'layers'
    FINAL_NORMS = ('norm',)

    layers: Any

    def __init__(
        self,
        arch: str | dict[str, Any] = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_channels: int = 3,
        window_size: int | tuple[int, int] = 7,
        strict_img_size: bool = False,
        gaug: bool = True,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'avg_featmap',
        final_norm: bool = True,
        frozen: bool = False,
        attention_backend: str | None = None,
        grad_checkpointing: bool = False,
        init_cfg: dict | list | None = None,
        alpha_scale: float = 1.0,
        kernel: str = 'axis',
    ) -> None:
        arch = self._resolve_arch(arch)
        self._check_options(out_type, gaug, attention_backend, alpha_scale, kernel)
        if min(to_2tuple(window_size)) < 1:
            raise ValueError(f'a window has at least one patch a side, got {window_size=}')
        SwinTransformer.__init__(
            self,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_channels,
            num_classes=0,
            window_size=window_size,
            strict_img_size=strict_img_size,
            drop_path_rate=drop_path_rate,
            **arch,
        )
        self.strict_img_size = strict_img_size
        self.patch_embed.dynamic_img_pad = not strict_img_size
        if not final_norm:
            self.norm = nn.Identity()
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

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.strict_img_size and x.shape[-2:] != self.patch_embed.img_size:
            raise ValueError(
                f'strict_img_size=True and img_size={self.patch_embed.img_size} refuse an image '
                f'of {x.shape[-2]}×{x.shape[-1]} pixels'
            )
        x = self._embed_patches(x)  # [B, H, W, C]
        outputs = []
        for index in range(self.out_indices[-1] + 1):
            x = self.layers[index](x)
            if index in self.out_indices:
                outputs.append(self._format(x, index == len(self.layers) - 1))
        return tuple(outputs)

    def _format(self, x: Tensor, is_last: bool) -> Tensor:
        if is_last:
            x = self.norm(x)
        if self.out_type == 'raw':
            return x.flatten(1, 2)
        if self.out_type == 'featmap':
            return x.permute(0, 3, 1, 2).contiguous()
        return x.mean(dim=(1, 2))

    def _count_blocks(self) -> int:
        return sum(len(stage.blocks) for stage in self.layers)

    def _find_depth(self, name: str) -> int | None:
        if name.startswith('patch_embed.'):
            return 0
        if not name.startswith('layers.'):
            return None
        stage, part, block, *_ = name.split('.')[1:]
        first = sum(len(earlier.blocks) for earlier in self.layers[: int(stage)]) + 1
        # A stage's patch merging belongs to its first block.
        return first + (int(block) if part == 'blocks' else 0)

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any]) -> dict[str, Any]:
        resolved = super()._resolve_arch(arch)
        embed_dim, depths, num_heads = (resolved[k] for k in ('embed_dim', 'depths', 'num_heads'))
        if len(depths) != len(num_heads):
            raise ValueError(f'{depths=} and {num_heads=} must have one entry per stage')
        for stage, heads in enumerate(num_heads):
            if embed_dim * 2**stage % heads:
                raise ValueError(
                    f'the width {embed_dim * 2**stage} of stage {stage} is not divisible by its '
                    f'{heads} heads: {embed_dim=}, {num_heads=}'
                )
        return resolved
