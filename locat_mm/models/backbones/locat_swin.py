"""LocAtSwin and its plain baseline on timm's ``SwinTransformer`` (arXiv 2603.04892; Swin:
arXiv 2103.14030).
"""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from timm.layers import to_2tuple
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from ...layers import add_gaug
from ...registry import MODELS, register
from .base import HostedBackbone

__all__ = ['LocAtSwin']


@register(MODELS)
class LocAtSwin(HostedBackbone, SwinTransformer, BaseModule):  # type: ignore[misc]
    """timm's Swin transformer with GAug inside every window.

    The Gaussian bias adds to the relative position bias; its reference grid is each block's
    own window, which is smaller than ``window_size`` where the map is. The host is timm's, so
    its checkpoints and the authors' load with unchanged keys. With ``gaug=False`` it is the
    plain Swin. Images of any size are taken, unless ``strict_img_size``; a side that is no
    multiple of the patch is zero-padded on the right and at the bottom.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or a dict with ``embed_dim`` (of the first
            stage; it doubles from stage to stage), ``depths`` and ``num_heads`` (per stage).
        img_size: pixels (int or (H, W)) that the windows are laid out for.
        patch_size: pixels per patch side.
        in_channels: channels of the image.
        window_size: patches along a window's side.
        strict_img_size: refuse images of another size than ``img_size``.
        gaug: add the Gaussian bias to every attention layer.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        out_indices: stage or stages whose output is returned; negative counts from the end.
            Stages after the last one are not run and get no gradient.
        out_type: ``'raw'`` all positions [B, H·W, C], ``'featmap'`` [B, C, H, W],
            ``'avg_featmap'`` their mean [B, C].
        final_norm: apply the final LayerNorm to the last stage's output. Other stages are
            never normed.
        frozen: no gradients and eval mode, whatever ``.train()`` says.
        attention_backend: see :func:`locat_mm.ops.gaussian_attention`; needs ``gaug``.
        grad_checkpointing: recompute each block in the backward pass to save memory.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=..., prefix=...)`` is
            strict: a file that does not fit is an error.

    Raises:
        ValueError: for an unknown arch, out_type or backend, an index out of range, stages
            that ``depths`` and ``num_heads`` count differently, a width not divisible by the
            heads, an image smaller than a patch, a window below 1.
        TypeError: if ``arch`` is neither a name nor a dict.
    """

    ARCHS = {
        'tiny': dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        'small': dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
        'base': dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    }
    OUT_TYPES = ('raw', 'featmap', 'avg_featmap')

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
    ) -> None:
        arch = self._resolve_arch(arch)
        self._check_options(out_type, gaug, attention_backend)
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
        self._check_img_size()
        self.strict_img_size = strict_img_size
        self.patch_embed.dynamic_img_pad = not strict_img_size  # type: ignore[assignment]
        if not final_norm:
            self.norm = nn.Identity()
        if gaug:
            add_gaug(self, backend=attention_backend)
        self.set_grad_checkpointing(grad_checkpointing)
        self._configure(gaug, out_type, out_indices, frozen, grad_checkpointing, init_cfg)

    @property
    def _num_outputs(self) -> int:
        return len(self.layers)

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.strict_img_size and x.shape[-2:] != self.patch_embed.img_size:
            raise ValueError(
                f'strict_img_size=True and img_size={self.patch_embed.img_size} refuse an image '
                f'of {x.shape[-2]}×{x.shape[-1]} pixels'
            )
        x = self.patch_embed(x)  # [B, H, W, C]
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

    def _unused(self) -> list[nn.Module]:
        last = self.out_indices[-1]
        return [] if last == len(self.layers) - 1 else [self.layers[last + 1 :], self.norm]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay (mmpretrain's contract).

        Args:
            param_name: full name in the model.
            prefix: what stands before this backbone's names, e.g. ``'backbone.'``.

        Returns:
            (depth, number of depths): 0 for the patch embedding, i + 1 for the i-th block
            counted through all stages, the last for everything after. Merging patches belongs
            to the first block of its stage.
        """
        stages: Any = self.layers
        depths = [len(stage.blocks) for stage in stages]
        num_depths = sum(depths) + 2
        if param_name.startswith(f'{prefix}patch_embed.'):
            return 0, num_depths
        if not param_name.startswith(f'{prefix}layers.'):
            return num_depths - 1, num_depths
        stage, part, block, *_ = param_name[len(prefix) :].split('.')[1:]
        first = sum(depths[: int(stage)]) + 1
        return first + (int(block) if part == 'blocks' else 0), num_depths

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
