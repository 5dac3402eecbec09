"""LocAtViT and its plain baselines on timm's ``VisionTransformer`` (arXiv 2603.04892)."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...checkpoint import init_from_pretrained
from ...layers import augment_attention
from ...registry import MODELS, register

__all__ = ['LocAtViT']


@register(MODELS)
class LocAtViT(VisionTransformer, BaseModule):
    """timm's vision transformer with GAug in every attention layer.

    The host is timm's, so its checkpoints and the authors' load with unchanged keys. With
    ``gaug=False`` it is the plain ViT. PRR is a neck
    (:class:`locat_mm.models.PatchRepresentationRefinement`), not part of the backbone.
    Images of any size are taken; a side that is no multiple of the patch is zero-padded on the
    right and at the bottom.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or a dict with ``embed_dim``, ``depth`` and
            ``num_heads``.
        img_size: pixels (int or (H, W)) that the position embedding and GAug's reference grid
            are built for.
        patch_size: pixels per patch side (int or (H, W)).
        in_channels: channels of the image.
        gaug: add the Gaussian bias to every attention layer.
        class_token: have a [CLS] token.
        num_registers: register tokens after [CLS].
        pos_embed: ``'learned'`` or ``'none'``.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        out_indices: block or blocks whose output is returned; negative counts from the end.
            Blocks after the last one are not run and get no gradient.
        out_type: ``'raw'`` all tokens [B, N, C], ``'cls_token'`` [B, C], ``'featmap'``
            [B, C, H, W], ``'avg_featmap'`` the mean patch [B, C]. As in mmpretrain.
        final_norm: apply the final LayerNorm to the last block's output; for
            ``'avg_featmap'`` after the pooling, as timm does. Other blocks are never normed.
        frozen: no gradients and eval mode, whatever ``.train()`` says.
        attention_backend: see :func:`locat_mm.ops.gaussian_attention`; needs ``gaug``.
        grad_checkpointing: recompute each block in the backward pass to save memory.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=..., prefix=...)`` is
            strict: a file that does not fit is an error.

    Raises:
        ValueError: for an unknown arch, out_type, pos_embed or backend, an index out of range,
            a width not divisible by the heads, an image smaller than a patch.
        TypeError: if ``arch`` is neither a name nor a dict.
    """

    ARCHS: dict[str, dict[str, Any]] = {
        'tiny': dict(embed_dim=192, depth=12, num_heads=3),
        'small': dict(embed_dim=384, depth=12, num_heads=6),
        'base': dict(embed_dim=768, depth=12, num_heads=12),
    }
    OUT_TYPES = ('raw', 'cls_token', 'featmap', 'avg_featmap')

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
    ) -> None:
        arch = self._resolve_arch(arch)
        _check_choice('out_type', out_type, self.OUT_TYPES)
        _check_choice('pos_embed', pos_embed, ('learned', 'none'))
        if out_type == 'cls_token' and not class_token:
            raise ValueError("out_type='cls_token' needs class_token=True")
        if attention_backend is not None and not gaug:
            raise ValueError(f'attention_backend={attention_backend!r} needs gaug=True')
        # num_classes=0: the head is OpenMMLab's. dynamic sizes: any image, padded to the patch.
        VisionTransformer.__init__(
            self,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_channels,
            num_classes=0,
            global_pool='avg' if out_type == 'avg_featmap' else '',
            class_token=class_token,
            reg_tokens=num_registers,
            pos_embed='learn' if pos_embed == 'learned' else 'none',
            final_norm=final_norm,
            drop_path_rate=drop_path_rate,
            dynamic_img_size=True,
            dynamic_img_pad=True,
            weight_init='skip',
            **arch,
        )
        self.weight_init_mode = ''  # timm's default scheme, which 'skip' had switched off
        VisionTransformer.init_weights(self, needs_reset=False)
        if min(self.patch_embed.grid_size) < 1:
            raise ValueError(f'img_size={img_size} is smaller than patch_size={patch_size}')
        # After timm's own initialisation, so that a seed gives plain and LocAt equal hosts.
        if gaug:
            augment_attention(
                self, self.patch_embed.grid_size, self.num_prefix_tokens, attention_backend
            )
        self.gaug = gaug
        self.out_type = out_type
        self.out_indices = self._resolve_indices(out_indices)
        self.frozen = frozen
        self.grad_checkpointing = grad_checkpointing
        self.init_cfg = copy.deepcopy(init_cfg)
        self._stop_gradients()

    def init_weights(self) -> None:  # type: ignore[override]
        """Apply ``init_cfg`` (mmengine); the random initialisation is the constructor's.

        Raises:
            ValueError: if a ``Pretrained`` file does not fit.
        """
        if not self.is_init and init_from_pretrained(self, self.init_cfg):
            self._is_init = True
            return
        if self.frozen and not self.is_init:
            print_log(
                f'{type(self).__name__} is frozen and init_cfg names no pretrained weights: '
                'unless a checkpoint is loaded later, its features are random',
                'current',
                logging.WARNING,
            )
        BaseModule.init_weights(self)

    def train(self, mode: bool = True) -> 'LocAtViT':
        """Set the mode; a frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """
        Args:
            x: images ``[B, 3, H, W]``.

        Returns:
            one tensor per entry of ``out_indices``, shaped by ``out_type``.

        Raises:
            ValueError: if the image is smaller than a patch.
        """
        if not self.frozen:
            return self._forward(x)
        with torch.no_grad():
            return self._forward(x)

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        patch_height, patch_width = self.patch_embed.patch_size
        if x.shape[-2] < patch_height or x.shape[-1] < patch_width:
            raise ValueError(
                f'an image of {x.shape[-2]}×{x.shape[-1]} pixels is smaller than a patch of '
                f'{patch_height}×{patch_width}'
            )
        x = self.patch_embed(x)  # [B, H, W, C]
        grid_size = (x.shape[1], x.shape[2])
        x = self._pos_embed(x)  # [B, N, C]
        # Plain timm blocks know no grid.
        extra: dict[str, Any] = dict(grid_size=grid_size) if self.gaug else {}
        outputs = []
        for index in range(self.out_indices[-1] + 1):
            block = self.blocks[index]
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, **extra)
            else:
                x = block(x, **extra)
            if index in self.out_indices:
                outputs.append(self._format(x, grid_size, index == len(self.blocks) - 1))
        return tuple(outputs)

    def _format(self, x: Tensor, grid_size: tuple[int, int], is_last: bool) -> Tensor:
        # timm makes one of norm and fc_norm an Identity: pooled features are normed after.
        if is_last:
            x = self.norm(x)
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return x[:, 0]
        patches = x[:, self.num_prefix_tokens :]  # [B, H·W, C]
        if self.out_type == 'featmap':
            return patches.transpose(1, 2).unflatten(2, grid_size).contiguous()  # [B, C, H, W]
        pooled = patches.mean(dim=1)
        return self.fc_norm(pooled) if is_last else pooled

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay (mmpretrain's contract).

        Args:
            param_name: full name in the model.
            prefix: what stands before this backbone's names, e.g. ``'backbone.'``.

        Returns:
            (depth, number of depths): 0 for the embeddings, i + 1 for block i, the last for
            everything after the blocks.
        """
        num_layers = len(self.blocks) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        stem, _, rest = param_name[len(prefix) :].partition('.')
        if stem in ('cls_token', 'reg_token', 'pos_embed', 'patch_embed'):
            return 0, num_layers
        if stem == 'blocks':
            return int(rest.partition('.')[0]) + 1, num_layers
        return num_layers - 1, num_layers

    def _stop_gradients(self) -> None:
        last = self.out_indices[-1]
        if self.frozen:
            self.requires_grad_(False)
            self.eval()
        elif last < len(self.blocks) - 1:
            # What forward does not reach would hang DistributedDataParallel.
            for unused in (self.blocks[last + 1 :], self.norm, self.fc_norm):
                unused.requires_grad_(False)

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any]) -> dict[str, Any]:
        if isinstance(arch, str):
            _check_choice('arch', arch, tuple(cls.ARCHS))
            return cls.ARCHS[arch]
        if not isinstance(arch, dict):
            raise TypeError(f'arch must be a name or a dict, got {arch!r}')
        wanted = set(cls.ARCHS['base'])
        if set(arch) != wanted:
            raise ValueError(f'arch must have the keys {sorted(wanted)}, got {dict(arch)}')
        if arch['embed_dim'] % arch['num_heads']:
            raise ValueError(
                f'embed_dim={arch["embed_dim"]} is not divisible by num_heads={arch["num_heads"]}'
            )
        return dict(arch)

    def _resolve_indices(self, out_indices: int | Sequence[int]) -> tuple[int, ...]:
        depth = len(self.blocks)
        given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        if not given or any(not -depth <= i < depth for i in given):
            raise ValueError(f'out_indices={out_indices} must name blocks of 0..{depth - 1}')
        resolved = tuple(i % depth for i in given)
        if list(resolved) != sorted(set(resolved)):
            raise ValueError(f'out_indices={out_indices} must be ascending and without repeats')
        return resolved


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f'unknown {name} {value!r}; choose from {", ".join(choices)}')
