"""Names of weights: those of OpenMMLab's models and of official files (timm's, the authors')."""

import re

import torch
from torch import Tensor

from .reading import StateDict

__all__ = ['merge_shared', 'shared_name', 'strip_prefix', 'to_official', 'to_openmmlab']

_BACKBONE, _NECK_NORM, _HEAD = 'backbone.', 'neck.norm.', 'head.fc.'
#: Jumbo's layers share one MLP; files contain it once, or once per layer.
_LAYER_OF_SHARED = re.compile(r'\bblocks\.\d+\.(?=jumbo_mlp\.)')


def to_official(state: StateDict) -> tuple[dict[str, Tensor], list[str]]:
    """Rename an OpenMMLab model's weights to the official names.

    Args:
        state: of an mmpretrain classifier (``backbone``, ``neck.norm``, ``head.fc``) or an
            mmseg segmentor, of which only the backbone is used.

    Returns:
        the renamed weights, and the names of omitted ones (a segmentor's neck and heads).

    Raises:
        ValueError: if there is no backbone, or a part that official files do not have.
    """
    if not any(key.startswith(_BACKBONE) for key in state):
        raise ValueError(f'no key starts with {_BACKBONE!r}: this is no checkpoint of OpenMMLab')
    is_segmentor = any(key.startswith('decode_head.') for key in state)
    # In timm, Swin's classifier is a module, and not only a layer.
    is_swin = any(key.startswith(f'{_BACKBONE}layers.') for key in state)
    official = {_BACKBONE: '', _NECK_NORM: 'fc_norm.', _HEAD: 'head.fc.' if is_swin else 'head.'}
    renamed, left_out = {}, []
    for key, value in merge_shared(state).items():
        if is_segmentor and not key.startswith(_BACKBONE):
            left_out.append(key)
            continue
        prefix = next((known for known in official if key.startswith(known)), None)
        if prefix is None:
            raise ValueError(f'{key} has no name in the official files')
        renamed[official[prefix] + key.removeprefix(prefix)] = value
    return renamed, left_out


def to_openmmlab(state: StateDict, neck_norm: bool) -> dict[str, Tensor]:
    """Rename official weights to the names of an mmpretrain classifier.

    Args:
        state: of timm or of the authors.
        neck_norm: whether ``fc_norm``, which follows the pooling, belongs to the neck (with
            PRR) or to the backbone (without).
    """
    renamed = {}
    for key, value in merge_shared(state).items():
        stem, _, rest = key.partition('.')
        if stem == 'head':
            target = _HEAD + rest.removeprefix('fc.')
        elif stem == 'fc_norm' and neck_norm:
            target = _NECK_NORM + rest
        else:
            target = _BACKBONE + key
        renamed[target] = value
    return renamed


def strip_prefix(state: StateDict, prefix: str, source: str) -> dict[str, Tensor]:
    """The weights under a prefix, without it.

    Args:
        state: name -> tensor.
        prefix: with or without the dot at its end.
        source: what to call the weights in the message.

    Raises:
        ValueError: if no name starts with the prefix.
    """
    prefix = f'{prefix.removesuffix(".")}.'
    part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not part:
        first = ', '.join(list(state)[:5])
        raise ValueError(f'{source} has no key that starts with {prefix!r}; its first are {first}')
    return part


def merge_shared(state: StateDict) -> dict[str, Tensor]:
    """Rename a weight that all layers share to one name.

    Raises:
        ValueError: if it differs from layer to layer.
    """
    shared: dict[str, Tensor] = {}
    for key, value in state.items():
        name = shared_name(key)
        if name in shared and not torch.equal(shared[name], value):
            raise ValueError(f'the layers share {name}, but {key} differs from it')
        shared[name] = value
    return shared


def shared_name(key: str) -> str:
    return _LAYER_OF_SHARED.sub('', key)
