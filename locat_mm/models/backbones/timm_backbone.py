"""Any transformer of timm as a backbone: CLIP, DINOv2, DINOv3, EVA-02, SigLIP, BEiT, Swin, ..."""

import functools
import inspect
import re
from collections.abc import Sequence
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from timm.models._manipulate import group_with_matcher
from torch import Tensor

from ...checkpoint import check_fit, pretrained_of, read_state_dict
from ...helpers import check_choice
from ...registry import MODELS
from .base import HostedBackbone

__all__ = ['TIMMBackbone']

#: What timm calls its attention layers.
_ATTENTION = re.compile(r'(?i:attention|attn)|SA$')


# mmseg and mmpretrain have a TIMMBackbone each, so ours is not entered at mmengine's root.
@MODELS.register_module()
class TIMMBackbone(HostedBackbone, BaseModule):  # type: ignore[misc]
    """A transformer of timm, with OpenMMLab's conventions: tokens, [CLS] or maps of its blocks.

    The host is ``self.model``, as timm builds it, without what the outputs do not need: blocks
    after the last of ``out_indices``, the classifier, an attention pooling. What is left would
    not hang DistributedDataParallel (save in CoaT and CrossViT, which timm prunes in part).
    ``dict(type='locat_mm.LocAt', backbone=dict(type='locat_mm.TIMMBackbone', ...))`` puts GAug
    into it. mmseg and mmpretrain each have another ``TIMMBackbone``, so the name needs its scope.

    Images of any size are taken if the host can (``dynamic_img_size``: its ViT, EVA and Swin
    families), and sides that are no multiple of the patch are then zero-padded on the right and
    at the bottom; ``dynamic_img_size=False`` and ``dynamic_img_pad=False`` leave timm's checks
    on. Other hosts, BEiT among them, take the ``img_size`` that they are built for, and timm
    raises on another.

    Args:
        model_name: timm's, e.g. ``'vit_base_patch14_reg4_dinov2.lvd142m'``.
        pretrained: let timm load its weights, from the Hugging Face hub.
        out_indices: block or blocks (of Swin and other hierarchical hosts: stages) whose output
            is returned; negative counts from the end.
        out_type: ``'raw'`` all tokens [B, N, C], prefix tokens first; ``'cls_token'`` [B, C];
            ``'featmap'`` [B, C, H, W]; ``'avg_featmap'`` the mean patch [B, C].
        final_norm: norm the last block's output as the host does; hosts that norm after pooling
            (``fc_norm``: BEiT, EVA-02) do it for ``'cls_token'`` and ``'avg_featmap'``. Outputs
            of other blocks are not normed, save by hosts of one width without prefix tokens to
            tell (CaiT, ConViT, XCiT), which norm all.
        frozen: no gradients and eval mode, whatever ``.train()`` says.
        grad_checkpointing: recompute each block in the backward pass to save memory.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=..., prefix=...)`` takes
            timm's names as well as those of an OpenMMLab checkpoint of such a backbone, and is
            strict: a file that does not fit is an error. It may hold parts of the host that the
            outputs do not need. GAug that is attached keeps its start if the file has none.
        **kwargs: of ``timm.create_model`` (``img_size``, ``drop_path_rate``, ...).

    Attributes:
        embed_dims: channels of the last output.
        out_channels: channels of every output, as timm tells them (SAM's without its neck).
        num_prefix_tokens: tokens in front of the patches in ``'raw'``.

    Raises:
        TypeError: if ``pretrained`` is no bool; timm's, for an argument that the host lacks.
        ValueError: if timm has no such model, it has no attention or no
            ``forward_intermediates``, for an unknown ``out_type`` or one that needs a class
            token which the host does not give, an index out of range, ``num_classes`` or
            ``features_only``, or ``pretrained`` or ``checkpoint_path`` beside ``init_cfg``.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: bool = False,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'featmap',
        final_norm: bool = True,
        frozen: bool = False,
        grad_checkpointing: bool = False,
        init_cfg: dict | list | None = None,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg)  # type: ignore[call-arg]
        check_choice('out_type', out_type, self.OUT_TYPES)
        if not isinstance(pretrained, bool):
            raise TypeError(
                f'pretrained must be a bool, got {pretrained!r}; files are for init_cfg'
            )
        is_loaded = pretrained or bool(kwargs.get('checkpoint_path'))
        if is_loaded and init_cfg:
            raise ValueError(
                f"timm's {pretrained=} or checkpoint_path and {init_cfg=} both say where weights "
                'come from'
            )
        # With its own head, so that timm checks its files in full; then the head goes.
        self.model = _build(model_name, pretrained, **kwargs)
        self.out_type = out_type
        self.frozen = frozen
        self._num_outputs = len(self.model.feature_info)
        self.out_indices = self._resolve_indices(out_indices)
        self._ends_normed = final_norm and self.out_indices[-1] == self._num_outputs - 1
        self.out_channels = tuple(self.model.feature_info[i]['num_chs'] for i in self.out_indices)
        self.embed_dims = self.out_channels[-1]

        intermediates = inspect.signature(self.model.forward_intermediates).parameters
        self._tells_tokens = 'return_prefix_tokens' in intermediates
        self.num_prefix_tokens = self.model.num_prefix_tokens if self._tells_tokens else 0
        has_class = self.num_prefix_tokens and getattr(self.model, 'cls_token', None) is not None
        if out_type == 'cls_token' and not has_class:
            raise ValueError(f'{model_name} gives no class token: out_type={out_type!r}')
        self._prune()
        if grad_checkpointing:
            self.model.set_grad_checkpointing(True)
        # Or mmengine would call timm's init_weights, also on weights that timm has loaded.
        self.model.is_init = True
        self._is_init = is_loaded
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def _prune(self) -> None:
        """Take off what the outputs do not need."""
        complete = self._names()
        fc_norm = getattr(self.model, 'fc_norm', None)
        self.model.prune_intermediate_layers(
            list(self.out_indices), prune_norm=not self._ends_normed, prune_head=True
        )
        if fc_norm is not None and self._norms_pooled:
            self.model.fc_norm = fc_norm
        self._left_out = complete - self._names()

    def _names(self) -> set[str]:
        """Of the host's weights, and of its layers, for the GAug that a file may have in them."""
        return {*self.model.state_dict(), *(name for name, _ in self.model.named_modules())}

    @property
    def _norms_pooled(self) -> bool:
        return self._ends_normed and self.out_type in ('cls_token', 'avg_featmap')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            x: images ``[B, in_chans, H, W]``.

        Returns:
            one tensor per entry of ``out_indices``, shaped by ``out_type``.

        Raises:
            AssertionError: timm's, if the host does not take images of this size, or cannot norm
                its outputs (Hiera: set ``final_norm=False``).
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._forward(x)

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # Hosts of one width would norm every output: their last is what they return beside.
        beside = self._ends_normed and self._tells_tokens
        options = dict(return_prefix_tokens=True) if self.num_prefix_tokens else {}
        outputs = self.model.forward_intermediates(
            x,
            indices=list(self.out_indices),
            norm=self._ends_normed and not beside,
            stop_early=True,
            intermediates_only=not beside,
            **options,
        )
        last, outputs = outputs if beside else (None, outputs)
        formatted = []
        for index, output in enumerate(outputs):
            # [B, C, H, W], [B, P, C]
            patches, prefix = output if self.num_prefix_tokens else (output, None)
            is_last = index == len(outputs) - 1
            if is_last and last is not None:
                tokens = last.flatten(1, -2)  # [B, P + H·W, C], or a map [B, H, W, C]
                prefix = tokens[:, : self.num_prefix_tokens] if prefix is not None else None
                patches = tokens[:, self.num_prefix_tokens :].mT.reshape(patches.shape)
            formatted.append(self._format(patches, prefix, is_last))
        return tuple(formatted)

    def _format(self, patches: Tensor, prefix: Tensor | None, is_last: bool) -> Tensor:
        if self.out_type == 'featmap':
            return patches.contiguous()
        if self.out_type == 'raw':
            tokens = patches.flatten(2).mT
            return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)
        pooled = patches.mean(dim=(2, 3))
        if self.out_type == 'cls_token':
            assert prefix is not None
            pooled = prefix[:, 0]
        norms = is_last and self._norms_pooled and hasattr(self.model, 'fc_norm')
        return self.model.fc_norm(pooled) if norms else pooled

    def init_weights(self) -> None:  # type: ignore[override]
        """Apply ``init_cfg`` (mmengine); the random initialisation is timm's.

        Raises:
            ValueError: if a ``Pretrained`` file does not fit.
        """
        if self.is_init:
            return
        init = pretrained_of(self.init_cfg)
        if init is None:
            super().init_weights()
        else:
            self._load(init)
            self._is_init = True

    def _load(self, init: PretrainedInit) -> None:
        state = read_state_dict(init.checkpoint, init.map_location)
        given = f'{init.prefix.removesuffix(".")}.' if init.prefix else None
        is_ours = False
        for prefix in (given or 'backbone.', 'model.'):
            part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if prefix == given and not part:
                first = ', '.join(list(state)[:5])
                raise ValueError(
                    f'{init.checkpoint} has no key that starts with {prefix!r}; its first are '
                    f'{first}'
                )
            is_ours |= bool(part)
            state = part or state
        state = {k: v for k, v in state.items() if k.partition('.gaug.')[0] not in self._left_out}
        # What stands under a prefix is a backbone of ours: its embeddings need not be square.
        state = {f'backbone.{key}' if is_ours else key: value for key, value in state.items()}
        fitted = check_fit(self.model, state, str(init.checkpoint), whole=False)
        self.model.load_state_dict(fitted.state, strict=False)  # all but fresh GAug is checked
        print_log(f'backbone weights loaded from {init.checkpoint}', logger='current')

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay (mmpretrain's contract).

        Args:
            param_name: full name in the model.
            prefix: what stands before this backbone's names, e.g. ``'backbone.'``.

        Returns:
            (depth, number of depths), as timm groups the host's layers: 0 for the embeddings,
            i + 1 for the i-th block, which the final norm joins, and the last for everything
            else.
        """
        names = [name for name, _ in self.model.named_parameters()]
        matcher = self.model.group_matcher()
        # '' matches no layer, so it stands with the heads.
        depths = group_with_matcher(((name, name) for name in [*names, '']), matcher, reverse=True)
        own = f'{prefix}model.'
        name = param_name.removeprefix(own) if param_name.startswith(own) else ''
        return depths.get(name, depths['']), depths[''] + 1


def _build(model_name: str, pretrained: bool, **kwargs) -> Any:
    """A transformer of timm that takes images of several sizes if it can."""
    for name in ('num_classes', 'features_only'):
        if name in kwargs:
            raise ValueError(
                f'{name}={kwargs[name]!r} is not for a backbone, which has no classifier and '
                'gives the features that out_indices and out_type say'
            )
    if _can_take_any_size(model_name):
        kwargs.setdefault('dynamic_img_size', True)
    model: Any = timm.create_model(model_name, pretrained=pretrained, **kwargs)
    # Swin has the padding too, but no argument for it.
    takes_any = getattr(model, 'dynamic_img_size', False) and 'dynamic_img_pad' not in kwargs
    if takes_any and hasattr(model.patch_embed, 'dynamic_img_pad'):
        model.patch_embed.dynamic_img_pad = True
    return model


@functools.cache
def _can_take_any_size(model_name: str) -> bool:
    """Look at a model of timm without building it: whether it has ``dynamic_img_size``.

    Raises:
        ValueError: if it is none that TIMMBackbone could run.
    """
    if ':' not in model_name and not timm.is_model(model_name):
        raise ValueError(f'timm {timm.__version__} has no model {model_name!r}')
    with torch.device('meta'):
        host = timm.create_model(model_name)
    needed = ('forward_intermediates', 'prune_intermediate_layers', 'feature_info')
    lacks = [name for name in needed if not hasattr(host, name)]
    if not any(_ATTENTION.search(type(module).__name__) for module in host.modules()):
        lacks.append('attention')
    if lacks:
        raise ValueError(
            f'{model_name} is a {type(host).__name__}, which has no {" and no ".join(lacks)}; '
            'TIMMBackbone is for transformers'
        )
    return hasattr(host, 'dynamic_img_size')
