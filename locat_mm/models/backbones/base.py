"""The part that all backbones on timm hosts share: OpenMMLab's conventions around the host."""

import copy
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...checkpoint import init_from_pretrained
from ...helpers import check_choice
from ...layers import GaussianAugment, add_gaug
from ...layers.gaussian_augment import check_alpha_scale, check_kernel

__all__ = ['HostedBackbone', 'TokenBackbone', 'resolve_indices']


class HostedBackbone(BaseModule):
    """First base class of a backbone. The timm host and mmengine's ``BaseModule`` follow it.

    Its ``forward`` and ``init_weights`` replace the host's methods, which have other arguments.
    A subclass checks its arguments, calls its host's constructor and then :meth:`_configure`.
    Its ``_forward`` runs the host on images.

    Attributes:
        out_indices: blocks or stages whose output is returned, ascending and not negative.
    """

    ARCHS: ClassVar[dict[str, dict[str, Any]]]
    OUT_TYPES: ClassVar[tuple[str, ...]] = ('raw', 'cls_token', 'featmap', 'avg_featmap')
    #: The host's attribute that holds its blocks or stages.
    STAGES: ClassVar[str] = 'blocks'
    #: The host's norms behind its last block or stage.
    FINAL_NORMS: ClassVar[tuple[str, ...]] = ('norm', 'fc_norm')

    gaug: bool
    out_type: str
    out_indices: tuple[int, ...]
    frozen: bool
    # Of the host:
    patch_embed: Any
    norm: Any
    grad_checkpointing: bool
    set_grad_checkpointing: Any

    @classmethod
    def _check_options(
        cls,
        out_type: str,
        gaug: bool,
        attention_backend: str | None,
        alpha_scale: float,
        kernel: str,
        class_token: bool = True,
    ) -> None:
        check_choice('out_type', out_type, cls.OUT_TYPES)
        if out_type == 'cls_token' and not class_token:
            raise ValueError("out_type='cls_token' needs class_token=True")
        if attention_backend is not None and not gaug:
            raise ValueError(f'attention_backend={attention_backend!r} needs gaug=True')
        check_kernel(kernel, gaug)
        check_alpha_scale(alpha_scale)
        if alpha_scale != 1 and not gaug:
            raise ValueError(f'{alpha_scale=} needs gaug=True')

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any]) -> dict[str, Any]:
        """The host's widths and depths: those of a named arch, or the checked dict."""
        if isinstance(arch, str):
            check_choice('arch', arch, tuple(cls.ARCHS))
            return cls.ARCHS[arch]
        if not isinstance(arch, dict):
            raise TypeError(f'arch must be a name or a dict, got {arch!r}')
        wanted = set(cls.ARCHS['base'])
        if set(arch) != wanted:
            raise ValueError(f'arch must have the keys {sorted(wanted)}, got {dict(arch)}')
        return dict(arch)

    def _configure(
        self,
        gaug: bool,
        attention_backend: str | None,
        alpha_scale: float,
        out_type: str,
        out_indices: int | Sequence[int],
        frozen: bool,
        grad_checkpointing: bool,
        init_cfg: dict | list | None,
        kernel: str,
    ) -> None:
        """Add GAug to the host and set what all backbones have; the last step of construction.

        GAug comes after the host's own initialisation. So a seed gives the same host weights with
        and without GAug.
        """
        if min(self.patch_embed.grid_size) < 1:
            raise ValueError(
                f'img_size={self.patch_embed.img_size} is smaller than '
                f'patch_size={self.patch_embed.patch_size}'
            )
        if gaug:
            self._add_gaug(attention_backend, kernel)
            for layer in self.modules():
                if isinstance(layer, GaussianAugment):
                    layer.alpha_scale = alpha_scale
        stages: Any = self.get_submodule(self.STAGES)
        self.gaug = gaug
        self.out_type = out_type
        self.out_indices = resolve_indices(out_indices, len(stages))
        self.frozen = frozen
        self.init_cfg = copy.deepcopy(init_cfg)
        self.set_grad_checkpointing(grad_checkpointing)
        if frozen:
            self.requires_grad_(False)
            self.eval()
        elif self.out_indices[-1] < len(stages) - 1:
            # DistributedDataParallel would wait forever for the gradients of unused parts.
            norms = [self.get_submodule(name) for name in self.FINAL_NORMS]
            for unused in [stages[self.out_indices[-1] + 1 :], *norms]:
                unused.requires_grad_(False)

    def _add_gaug(self, attention_backend: str | None, kernel: str) -> None:
        add_gaug(self, backend=attention_backend, kernel=kernel)

    def init_weights(self, **timm_kwargs) -> None:
        """Apply ``init_cfg`` (mmengine). The constructor has done the random initialisation.

        Raises:
            ValueError: if a ``Pretrained`` file does not fit.
        """
        if timm_kwargs:  # a timm constructor calls timm's method, which has the same name
            super().init_weights(**timm_kwargs)  # type: ignore[call-arg]
        elif not self.is_init and self._load_pretrained():
            self._is_init = True
        else:
            if self.frozen and not self.is_init:
                print_log(
                    f'{type(self).__name__} is frozen and init_cfg names no pretrained weights: '
                    'unless a checkpoint is loaded later, its features are random',
                    'current',
                    logging.WARNING,
                )
            BaseModule.init_weights(self)

    def _load_pretrained(self) -> bool:
        """Load the ``Pretrained`` file of ``init_cfg``; False if there is none."""
        return init_from_pretrained(self, self.init_cfg)

    def train(self, mode: bool = True) -> 'HostedBackbone':
        """Set the mode. A frozen backbone stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            x: images ``[B, in_channels, H, W]``.

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
        raise NotImplementedError

    def _embed_patches(self, x: Tensor) -> Tensor:
        """Images ``[B, in_channels, H, W]`` to patches ``[B, rows, columns, C]``."""
        patch_height, patch_width = self.patch_embed.patch_size
        if x.shape[-2] < patch_height or x.shape[-1] < patch_width:
            raise ValueError(
                f'an image of {x.shape[-2]}×{x.shape[-1]} pixels is smaller than a patch of '
                f'{patch_height}×{patch_width}'
            )
        return self.patch_embed(x)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay, as mmpretrain defines it.

        Args:
            param_name: full name in the model.
            prefix: of this backbone's parameter names, e.g. ``'backbone.'``.

        Returns:
            (depth, number of depths). Depth 0 is the embeddings, i + 1 the i-th block, counted
            through all stages. The last depth is all other parameters.
        """
        last = self._count_blocks() + 1
        depth = None
        if param_name.startswith(prefix):
            depth = self._find_depth(param_name[len(prefix) :])
        return (last if depth is None else depth), last + 1

    def _count_blocks(self) -> int:
        raise NotImplementedError

    def _find_depth(self, name: str) -> int | None:
        """Depth of a parameter of this backbone; None for the last depth."""
        raise NotImplementedError


class TokenBackbone(HostedBackbone):
    """A host of one width: a sequence of tokens that passes through equal ``blocks``.

    Prefix tokens, such as [CLS] and registers, stand in front of the patches.
    """

    #: Parameters at depth 0 of layer-wise learning-rate decay.
    EMBEDDINGS: ClassVar[tuple[str, ...]] = ('cls_token', 'reg_token', 'pos_embed', 'patch_embed')
    #: No classifier, because OpenMMLab has heads. Images of any size, padded to whole patches.
    HOST_OPTIONS: ClassVar[dict[str, Any]] = dict(
        num_classes=0, dynamic_img_size=True, dynamic_img_pad=True
    )

    num_prefix_tokens: int
    blocks: Any
    fc_norm: Any
    _pos_embed: Any

    @classmethod
    def _resolve_arch(cls, arch: str | dict[str, Any]) -> dict[str, Any]:
        resolved = super()._resolve_arch(arch)
        embed_dim, num_heads = resolved['embed_dim'], resolved['num_heads']
        if embed_dim % num_heads:
            raise ValueError(f'{embed_dim=} is not divisible by {num_heads=}')
        return resolved

    def _add_gaug(self, attention_backend: str | None, kernel: str) -> None:
        where = self.patch_embed.grid_size, self.num_prefix_tokens
        add_gaug(self, *where, attention_backend, kernel)

    def _embed(self, x: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """Patches ``[B, H, W, C]`` to tokens ``[B, N, C]``, and more arguments of each block."""
        return self._pos_embed(x), [{} for _ in self.blocks]

    def _norm_tokens(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def read_class(self, x: Tensor) -> Tensor:
        """The class token ``[B, C]`` of tokens ``[B, N, C]``."""
        return x[:, 0]

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self._embed_patches(x)  # [B, H, W, C]
        grid_size = (x.shape[1], x.shape[2])
        x, options = self._embed(x)
        outputs = []
        for index in range(self.out_indices[-1] + 1):
            block, kwargs = self.blocks[index], options[index]
            if self.gaug:  # timm's plain blocks have no such argument
                kwargs['grid_size'] = grid_size
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, **kwargs)
            else:
                x = block(x, **kwargs)
            if index in self.out_indices:
                outputs.append(self._format(x, grid_size, index == len(self.blocks) - 1))
        return tuple(outputs)

    def _format(self, x: Tensor, grid_size: tuple[int, int], is_last: bool) -> Tensor:
        # Either norm or fc_norm is an Identity. fc_norm is for features that are pooled first.
        if is_last:
            x = self._norm_tokens(x)
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return self.read_class(x)
        patches = x[:, self.num_prefix_tokens :]  # [B, H·W, C]
        if self.out_type == 'featmap':
            return patches.transpose(1, 2).unflatten(2, grid_size).contiguous()  # [B, C, H, W]
        pooled = patches.mean(dim=1)
        return self.fc_norm(pooled) if is_last else pooled

    def _count_blocks(self) -> int:
        return len(self.blocks)

    def _find_depth(self, name: str) -> int | None:
        stem, _, rest = name.partition('.')
        if stem in self.EMBEDDINGS:
            return 0
        return int(rest.partition('.')[0]) + 1 if stem == 'blocks' else None


def resolve_indices(out_indices: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Indices of ``count`` blocks or stages, none of them negative."""
    given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    if not given or any(not -count <= i < count for i in given):
        raise ValueError(f'out_indices={out_indices} must be within 0..{count - 1}')
    resolved = tuple(i % count for i in given)
    if list(resolved) != sorted(set(resolved)):
        raise ValueError(f'out_indices={out_indices} must be ascending and without repeats')
    return resolved
