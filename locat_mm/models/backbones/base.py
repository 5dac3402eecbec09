"""What LocAt backbones share: OpenMMLab's conventions around a timm host."""

import copy
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...checkpoint import init_from_pretrained
from ...helpers import check_choice

__all__ = ['HostedBackbone', 'TokenBackbone']


class HostedBackbone:
    """Stands before a timm model and mmengine's ``BaseModule`` in a backbone's bases.

    A subclass builds its host, puts GAug into it and calls :meth:`_configure`; it says how an
    image runs through the host in ``_forward``, and names its stages for ``out_indices`` in
    ``_num_outputs``.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]]
    OUT_TYPES: ClassVar[tuple[str, ...]] = ('raw', 'cls_token', 'featmap', 'avg_featmap')

    def _configure(
        self: Any,
        gaug: bool,
        out_type: str,
        out_indices: int | Sequence[int],
        frozen: bool,
        grad_checkpointing: bool,
        init_cfg: dict | list | None,
    ) -> None:
        self.gaug = gaug
        self.out_type = out_type
        self.out_indices = self._resolve_indices(out_indices)
        self.frozen = frozen
        self.grad_checkpointing = grad_checkpointing
        self.init_cfg = copy.deepcopy(init_cfg)
        if frozen:
            self.requires_grad_(False)
            self.eval()
        else:
            # What forward does not reach would hang DistributedDataParallel.
            for unused in self._unused():
                unused.requires_grad_(False)

    def init_weights(self: Any, **timm_kwargs) -> None:
        """Apply ``init_cfg`` (mmengine); the random initialisation is the constructor's.

        Raises:
            ValueError: if a ``Pretrained`` file does not fit.
        """
        if timm_kwargs:  # timm's constructors call their own initialisation by the same name
            super().init_weights(**timm_kwargs)  # type: ignore[misc]
            return
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

    def train(self: Any, mode: bool = True) -> Any:
        """Set the mode; a frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)  # type: ignore[misc]

    def forward(self: Any, x: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            x: images ``[B, in_channels, H, W]``.

        Returns:
            one tensor per entry of ``out_indices``, shaped by ``out_type``.

        Raises:
            ValueError: if the image is smaller than a patch.
        """
        patch_height, patch_width = self.patch_embed.patch_size
        if x.shape[-2] < patch_height or x.shape[-1] < patch_width:
            raise ValueError(
                f'an image of {x.shape[-2]}×{x.shape[-1]} pixels is smaller than a patch of '
                f'{patch_height}×{patch_width}'
            )
        if not self.frozen:
            return self._forward(x)
        with torch.no_grad():
            return self._forward(x)

    def _resolve_indices(self: Any, out_indices: int | Sequence[int]) -> tuple[int, ...]:
        count = self._num_outputs
        given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        if not given or any(not -count <= i < count for i in given):
            raise ValueError(f'out_indices={out_indices} must be within 0..{count - 1}')
        resolved = tuple(i % count for i in given)
        if list(resolved) != sorted(set(resolved)):
            raise ValueError(f'out_indices={out_indices} must be ascending and without repeats')
        return resolved

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any]) -> dict[str, Any]:
        if isinstance(arch, str):
            check_choice('arch', arch, tuple(cls.ARCHS))
            return cls.ARCHS[arch]
        if not isinstance(arch, dict):
            raise TypeError(f'arch must be a name or a dict, got {arch!r}')
        wanted = set(cls.ARCHS['base'])
        if set(arch) != wanted:
            raise ValueError(f'arch must have the keys {sorted(wanted)}, got {dict(arch)}')
        return dict(arch)

    @classmethod
    def _check_options(
        cls,
        out_type: str,
        gaug: bool,
        attention_backend: str | None,
        class_token: bool = True,
    ) -> None:
        check_choice('out_type', out_type, cls.OUT_TYPES)
        if out_type == 'cls_token' and not class_token:
            raise ValueError("out_type='cls_token' needs class_token=True")
        if attention_backend is not None and not gaug:
            raise ValueError(f'attention_backend={attention_backend!r} needs gaug=True')

    def _check_img_size(self: Any) -> None:
        if min(self.patch_embed.grid_size) < 1:
            raise ValueError(
                f'img_size={self.patch_embed.img_size} is smaller than '
                f'patch_size={self.patch_embed.patch_size}'
            )


class TokenBackbone(HostedBackbone):
    """A host with one width throughout: prefix tokens, patches and ``blocks``."""

    #: Parameters at depth 0 of layer-wise learning-rate decay.
    EMBEDDINGS: ClassVar[tuple[str, ...]] = ('cls_token', 'reg_token', 'pos_embed', 'patch_embed')

    @property
    def _num_outputs(self: Any) -> int:
        return len(self.blocks)

    def _embed(self: Any, x: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """Patches ``[B, H, W, C]`` to tokens ``[B, N, C]``, and what each block takes beside."""
        return self._pos_embed(x), [{} for _ in self.blocks]

    def _norm_tokens(self: Any, x: Tensor) -> Tensor:
        return self.norm(x)

    def _read_class(self: Any, x: Tensor) -> Tensor:
        return x[:, 0]

    def _forward(self: Any, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed(x)  # [B, H, W, C]
        grid_size = (x.shape[1], x.shape[2])
        x, extras = self._embed(x)
        outputs = []
        for index in range(self.out_indices[-1] + 1):
            block, extra = self.blocks[index], extras[index]
            if self.gaug:  # plain timm blocks know no grid
                extra['grid_size'] = grid_size
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, **extra)
            else:
                x = block(x, **extra)
            if index in self.out_indices:
                outputs.append(self._format(x, grid_size, index == len(self.blocks) - 1))
        return tuple(outputs)

    def _format(self: Any, x: Tensor, grid_size: tuple[int, int], is_last: bool) -> Tensor:
        # timm makes one of norm and fc_norm an Identity: pooled features are normed after.
        if is_last:
            x = self._norm_tokens(x)
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return self._read_class(x)
        patches = x[:, self.num_prefix_tokens :]  # [B, H·W, C]
        if self.out_type == 'featmap':
            return patches.transpose(1, 2).unflatten(2, grid_size).contiguous()  # [B, C, H, W]
        pooled = patches.mean(dim=1)
        return self.fc_norm(pooled) if is_last else pooled

    def _unused(self: Any) -> list[nn.Module]:
        last = self.out_indices[-1]
        if last == len(self.blocks) - 1:
            return []
        return [self.blocks[last + 1 :], self.norm, self.fc_norm]

    def get_layer_depth(self: Any, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay (mmpretrain's contract).

        Args:
            param_name: full name in the model.
            prefix: what stands before this backbone's names, e.g. ``'backbone.'``.

        Returns:
            (depth, number of depths): 0 for the embeddings, i + 1 for block i, the last for
            everything after the blocks.
        """
        num_depths = len(self.blocks) + 2
        if not param_name.startswith(prefix):
            return num_depths - 1, num_depths
        stem, _, rest = param_name[len(prefix) :].partition('.')
        if stem in self.EMBEDDINGS:
            return 0, num_depths
        if stem == 'blocks':
            return int(rest.partition('.')[0]) + 1, num_depths
        return num_depths - 1, num_depths

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any]) -> dict[str, Any]:
        resolved = super()._resolve_arch(arch)
        embed_dim, num_heads = resolved['embed_dim'], resolved['num_heads']
        if embed_dim % num_heads:
            raise ValueError(f'{embed_dim=} is not divisible by {num_heads=}')
        return resolved
