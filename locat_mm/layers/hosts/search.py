"""Which attention layers GAug can enter, and where a host has them."""

import re
from importlib import import_module
from typing import Any

from torch import nn

from ..mixins import GAugMixin

__all__ = ['SUPPORTED', 'gaug_class_of', 'find_attention']

#: A host's attention layer -> the same with GAug, in a module of this folder. Names, because
#: importing every package takes seconds. A further kind is one entry and one class.
SUPPORTED: dict[str, str] = {
    'timm.layers.attention.Attention': 'timm.GaussianAugmentedAttention',
    'timm.layers.attention.AttentionRope': 'timm.GaussianAugmentedRopeAttention',
    'timm.models.swin_transformer.WindowAttention': 'timm.GaussianAugmentedWindowAttention',
    'timm.models.eva.EvaAttention': 'timm.GaussianAugmentedEvaAttention',
    'timm.models.beit.Attention': 'timm.GaussianAugmentedBeitAttention',
    'mmpretrain.models.utils.attention.MultiheadAttention': (
        'mmpretrain.GaussianAugmentedMultiheadAttention'
    ),
    'mmpretrain.models.utils.attention.WindowMSA': ('mmpretrain.GaussianAugmentedWindowMSA'),
    'mmpretrain.models.utils.attention.BEiTAttention': (
        'mmpretrain.GaussianAugmentedBEiTAttention'
    ),
    'mmpretrain.models.backbones.vit_eva02.AttentionWithRoPE': (
        'mmpretrain.GaussianAugmentedAttentionWithRoPE'
    ),
    'mmpretrain.models.backbones.vit_sam.Attention': ('mmpretrain.GaussianAugmentedSAMAttention'),
    'mmcv.cnn.bricks.transformer.MultiheadAttention': ('mmseg.GaussianAugmentedMultiheadAttention'),
    'mmseg.models.backbones.swin.WindowMSA': 'mmseg.GaussianAugmentedWindowMSA',
    'mmseg.models.backbones.beit.BEiTAttention': 'mmseg.GaussianAugmentedBEiTAttention',
    'mmseg.models.backbones.mae.MAEAttention': 'mmseg.GaussianAugmentedMAEAttention',
}

#: Class names of other attention layers, which GAug cannot enter: they are reported. Attention that
#: pools the tokens comes after the backbone and is ignored.
_ATTENTION = re.compile(r'attention|attn|msa$', re.IGNORECASE)
_NOT_ATTENTION = re.compile(r'pool|dropout|norm', re.IGNORECASE)


def gaug_class_of(kind: type[nn.Module]) -> Any:
    """The subclass of :class:`GAugMixin` for a host's attention layer, or None."""
    path = SUPPORTED.get(f'{kind.__module__}.{kind.__qualname__}')
    if path is None:
        return None
    module, name = path.split('.')
    return getattr(import_module(f'.{module}', __package__), name)


def find_attention(host: nn.Module) -> list[tuple[str, nn.Module]]:
    """All attention layers of a host that GAug can enter, with their names.

    Args:
        host: a model or a part of it.

    Raises:
        TypeError: if one is of a kind that is not supported or has GAug already, or there is none.
    """
    found: list[tuple[str, nn.Module]] = []
    others: list[tuple[str, nn.Module]] = []
    _search(host, '', found, others)
    for name, module in others:
        kind = type(module)
        if isinstance(module, GAugMixin):
            raise TypeError(f'{name or kind.__name__} has GAug already')
        raise TypeError(
            f'{name or "the host"} is a {kind.__name__} of {kind.__module__}; {_supported()}'
        )
    if not found:
        raise TypeError(
            f'{type(host).__name__} has no attention layer that GAug could augment; {_supported()}'
        )
    return found


def _search(
    module: nn.Module,
    name: str,
    found: list[tuple[str, nn.Module]],
    others: list[tuple[str, nn.Module]],
) -> None:
    kind = type(module)
    if isinstance(module, GAugMixin):
        others.append((name, module))
        return
    if gaug_class_of(kind) is not None:
        found.append((name, module))
        return
    num_found, num_others = len(found), len(others)
    for child_name, child in module.named_children():
        _search(child, f'{name}.{child_name}' if name else child_name, found, others)
    is_attention = _ATTENTION.search(kind.__name__) and not _NOT_ATTENTION.search(kind.__name__)
    if not is_attention or len(found) > num_found or next(module.parameters(), None) is None:
        return
    # A module that wraps an attention layer, as ShiftWindowMSA does, is not reported. torch's own
    # attention is: the message names the module around it.
    inner = others[num_others:]
    if all(type(other).__module__.startswith('torch.') for _, other in inner):
        others[num_others:] = [(name, module)]


def _supported() -> str:
    return f'GAug supports {", ".join(SUPPORTED)}'
