"""Any transformer of timm as a backbone: CLIP, DINOv2, DINOv3, EVA-02, SigLIP, BEiT, Swin, ..."""

import functools
import inspect
import re
from collections.abc import Sequence
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from timm.models._manipulate import group_with_matcher
from torch import Tensor

from ...checkpoint import check_fit, pretrained_of, read_state_dict, strip_prefix
from ...helpers import check_choice
from ...registry import MODELS
from .base import HostedBackbone, resolve_indices

__all__ = ['TIMMBackbone']

#: Class names of timm's attention layers.
_ATTENTION = re.compile(r'(?i:attention|attn)|SA$')


# Not registered at mmengine's root, because mmseg and mmpretrain each have a TIMMBackbone.
@MODELS.register_module()
class TIMMBackbone(HostedBackbone):
    """A transformer of timm with OpenMMLab's conventions: tokens, [CLS] or maps of its blocks.

    The host is ``self.model``, as timm builds it, without the parts that the outputs do not need:
    blocks after the last of ``out_indices``, the classifier, an attention pooling. So every
    parameter gets a gradient, as DistributedDataParallel needs (not in CoaT and CrossViT, which
    timm prunes in part). Add GAug by
    ``dict(type='locat_mm.LocAt', backbone=dict(type='locat_mm.TIMMBackbone', ...))``. The type
    needs its scope, because mmseg and mmpretrain each have another ``TIMMBackbone``.

    Hosts with ``dynamic_img_size`` (the ViT, EVA and Swin families) take images of any size. Sides
    that are no multiple of the patch are zero-padded on the right or at the bottom.
    ``dynamic_img_size=False`` and ``dynamic_img_pad=False`` turn this off. Other hosts, such as
    BEiT, take only the ``img_size`` that they are built for. timm raises an AssertionError for an
    image of a wrong size, and for hosts that cannot norm their outputs (Hiera: set
    ``final_norm=False``).

    Args:
        model_name: timm's, e.g. ``'vit_base_patch14_reg4_dinov2.lvd142m'``.
        pretrained: let timm load its weights from the Hugging Face hub.
        out_indices: block or blocks (in hierarchical hosts such as Swin: stages) whose output is
            returned. Negative indices count from the end.
        out_type: ``'raw'`` all tokens [B, N, C], prefix tokens first; ``'cls_token'`` [B, C];
            ``'featmap'`` [B, C, H, W]; ``'avg_featmap'`` the mean of the patches [B, C].
        final_norm: apply the host's final norm to the last block's output. Hosts that norm after
            pooling (``fc_norm``: BEiT, EVA-02) norm ``'cls_token'`` and ``'avg_featmap'`` only.
            Outputs of other blocks have no norm, except in hosts of one width that do not return
            prefix tokens (CaiT, ConViT, XCiT).
        frozen, grad_checkpointing: see :class:`LocAtViT`.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=..., prefix=...)`` takes a
            file with timm's keys or with those of an OpenMMLab checkpoint of such a backbone.
            It is strict: a file that does not fit is an error. Parts of the host that the outputs
            do not need are ignored. Attached GAug keeps its start if the file has no GAug.
        in_channels: channels of the image; None: the host's, which are 3 as a rule. Pretrained
            weights are adapted, which the log says.
        **kwargs: of ``timm.create_model`` (``img_size``, ``drop_path_rate``, ...).

    Attributes:
        embed_dims: channels of the last output.
        out_channels: channels of every output, as timm states them (SAM's without its neck).
        num_prefix_tokens: tokens in front of the patches in ``'raw'``.

    Raises:
        TypeError: if ``pretrained`` is no bool; timm's, for an argument that the host lacks.
        ValueError: if timm has no such model, or one without attention or
            ``forward_intermediates``; for an unknown ``out_type``, for ``'cls_token'`` if the host
            returns no class token, for an index out of range, for ``num_classes`` or
            ``features_only``, for ``pretrained`` or ``checkpoint_path`` beside ``init_cfg``, or for
            an ``in_chans`` that is not ``in_channels``.
    """

    model: Any

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
        in_channels: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg)
        if in_channels is not None and kwargs.setdefault('in_chans', in_channels) != in_channels:
            raise ValueError(f'{in_channels=} and in_chans={kwargs["in_chans"]} differ')
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
        # Built with its head, so that timm checks a whole file. _prune removes the head.
        self.model = _build(model_name, pretrained, **kwargs)
        if pretrained:
            _log_channels(self.model, kwargs.get('in_chans'))
        self.out_type = out_type
        self.frozen = frozen
        num_outputs = len(self.model.feature_info)
        self.out_indices = resolve_indices(out_indices, num_outputs)
        self._ends_normed = final_norm and self.out_indices[-1] == num_outputs - 1
        self.out_channels = tuple(self.model.feature_info[i]['num_chs'] for i in self.out_indices)
        self.embed_dims = self.out_channels[-1]

        intermediates = inspect.signature(self.model.forward_intermediates).parameters
        self._returns_prefix = 'return_prefix_tokens' in intermediates
        self.num_prefix_tokens = self.model.num_prefix_tokens if self._returns_prefix else 0
        has_class = self.num_prefix_tokens and getattr(self.model, 'cls_token', None) is not None
        if out_type == 'cls_token' and not has_class:
            raise ValueError(f'{model_name} gives no class token: out_type={out_type!r}')
        self._prune()
        if grad_checkpointing:
            self.model.set_grad_checkpointing(True)
        # So mmengine does not call timm's init_weights, which would undo what timm has loaded.
        self.model.is_init = True
        self._is_init = is_loaded
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def _prune(self) -> None:
        """Remove the parts that the outputs do not need."""
        complete = self._names()
        fc_norm = getattr(self.model, 'fc_norm', None)
        self.model.prune_intermediate_layers(
            list(self.out_indices), prune_norm=not self._ends_normed, prune_head=True
        )
        if fc_norm is not None and self._norms_pooled:
            self.model.fc_norm = fc_norm
        self._left_out = complete - self._names()

    def _names(self) -> set[str]:
        """Names of weights, and of layers, because a file may hold GAug of a layer."""
        return {*self.model.state_dict(), *(name for name, _ in self.model.named_modules())}

    @property
    def _norms_pooled(self) -> bool:
        return self._ends_normed and self.out_type in ('cls_token', 'avg_featmap')

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # Hosts of one width would norm all intermediates. Their second result is the last output
        # with its norm.
        has_final = self._ends_normed and self._returns_prefix
        options = dict(return_prefix_tokens=True) if self.num_prefix_tokens else {}
        outputs = self.model.forward_intermediates(
            x,
            indices=list(self.out_indices),
            norm=self._ends_normed and not has_final,
            stop_early=True,
            intermediates_only=not has_final,
            **options,
        )
        final, outputs = outputs if has_final else (None, outputs)
        formatted = []
        for index, output in enumerate(outputs):
            # [B, C, H, W], [B, P, C]
            patches, prefix = output if self.num_prefix_tokens else (output, None)
            is_last = index == len(outputs) - 1
            if is_last and final is not None:
                tokens = final.flatten(1, -2)  # [B, P + H·W, C], or a map [B, H, W, C]
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

    def init_weights(self, **timm_kwargs) -> None:
        if not self.is_init:  # weights that timm has loaded stay
            super().init_weights(**timm_kwargs)

    def _load_pretrained(self) -> bool:
        init = pretrained_of(self.init_cfg)
        if init is None:
            return False
        state = read_state_dict(init.checkpoint, init.map_location)
        is_ours = bool(init.prefix)
        if init.prefix:
            state = strip_prefix(state, init.prefix, str(init.checkpoint))
        for prefix in ('model.',) if init.prefix else ('backbone.', 'model.'):
            if any(key.startswith(prefix) for key in state):
                state, is_ours = strip_prefix(state, prefix, str(init.checkpoint)), True
        state = {k: v for k, v in state.items() if k.partition('.gaug.')[0] not in self._left_out}
        # Under a prefix is a backbone of this package: its position grid need not be square.
        state = {f'backbone.{key}' if is_ours else key: value for key, value in state.items()}
        fitted = check_fit(self.model, state, str(init.checkpoint), whole=False)
        self.model.load_state_dict(fitted.state, strict=False)  # only new GAug may be missing
        print_log(f'backbone weights loaded from {init.checkpoint}', logger='current')
        return True

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As :meth:`HostedBackbone.get_layer_depth`, with timm's own groups of layers.

        The final norm has the depth of the last block.
        """
        names = [name for name, _ in self.model.named_parameters()]
        matcher = self.model.group_matcher()
        # The name '' matches no layer, so it gets the depth of heads, which is the last.
        depths = group_with_matcher(((name, name) for name in [*names, '']), matcher, reverse=True)
        own = f'{prefix}model.'
        name = param_name.removeprefix(own) if param_name.startswith(own) else ''
        return depths.get(name, depths['']), depths[''] + 1


def _build(model_name: str, pretrained: bool, **kwargs) -> Any:
    """Build a transformer of timm, for images of several sizes where the host allows them."""
    for name in ('num_classes', 'features_only'):
        if name in kwargs:
            raise ValueError(
                f'{name}={kwargs[name]!r} is not for a backbone, which has no classifier and '
                'gives the features that out_indices and out_type say'
            )
    if _can_take_any_size(model_name):
        kwargs.setdefault('dynamic_img_size', True)
    model: Any = timm.create_model(model_name, pretrained=pretrained, **kwargs)
    # Swin can pad too, but has no argument for it.
    takes_any = getattr(model, 'dynamic_img_size', False) and 'dynamic_img_pad' not in kwargs
    if takes_any and hasattr(model.patch_embed, 'dynamic_img_pad'):
        model.patch_embed.dynamic_img_pad = True
    return model


def _log_channels(model: Any, in_chans: int | None) -> None:
    """Say that timm has adapted weights; its own log is not shown by default."""
    given = (model.pretrained_cfg.get('input_size') or (3,))[0]
    if in_chans not in (None, given):
        how = 'summed' if in_chans == 1 else f'repeated and scaled by {given}/{in_chans}'
        print_log(
            f'{model.pretrained_cfg.get("first_conv")}: filters of {given} channels {how} for '
            f'{in_chans}',
            'current',
        )


@functools.cache
def _can_take_any_size(model_name: str) -> bool:
    """Whether a model of timm has ``dynamic_img_size``. Built on the meta device to find out.

    Raises:
        ValueError: if TIMMBackbone cannot run the model.
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
