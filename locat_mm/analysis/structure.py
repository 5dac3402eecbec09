"""Finds attention layers, blocks and class tokens in a vision transformer."""

from dataclasses import dataclass
from typing import Any

import torch
from mmpretrain.models.backbones.vit_sam import window_partition
from torch import Tensor, nn

from ..layers import SUPPORTED, GAugMixin
from ..layers.attach import count_prefix_tokens, find_patch_embed
from ..layers.hosts.search import gaug_class_of
from ..models import LocAtJumbo

__all__ = ['AttentionLayer', 'class_tokens', 'find_backbone', 'find_layers', 'window_patches']


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer and the modules around it.

    Attributes:
        name: in the backbone.
        attn: the layer, with GAug or without.
        parent: the module that holds it. If there are windows, this module makes them.
        block: the transformer block that holds it; None if there is none.
    """

    name: str
    attn: Any
    parent: Any
    block: nn.Module | None

    @property
    def has_gaug(self) -> bool:
        return isinstance(self.attn, GAugMixin)

    @property
    def is_windowed(self) -> bool:
        """Whether it attends within windows. A layer of ViTSAM may also be global."""
        kind = type(self.attn) if self.has_gaug else gaug_class_of(type(self.attn))
        return kind.fixed_grid(self.attn) is not None and bool(self.parent.window_size)


def find_backbone(model: Any) -> nn.Module:
    """The backbone of a classifier or a segmentor, or the model itself."""
    return model.backbone if hasattr(model, 'backbone') else model


def find_layers(backbone: nn.Module) -> list[AttentionLayer]:
    """All attention layers, in the order of the modules.

    Args:
        backbone: a vision transformer, with GAug (built in or attached) or without.

    Raises:
        ValueError: if there is none of a kind that :func:`locat_mm.attach` supports.
    """
    layers = []
    for name, module in backbone.named_modules():
        if isinstance(module, GAugMixin) or gaug_class_of(type(module)):
            path = name.split('.')
            numbered = [i for i, part in enumerate(path[:-1]) if part.isdigit()]
            block = backbone.get_submodule('.'.join(path[: numbered[-1] + 1])) if numbered else None
            parent = backbone.get_submodule('.'.join(path[:-1]))
            layers.append(AttentionLayer(name, module, parent, block))
    if not layers:
        raise ValueError(
            f'{type(backbone).__name__} has no attention layer to look into; known are '
            f'{", ".join(SUPPORTED)}, and the same with GAug'
        )
    return layers


def class_tokens(backbone: nn.Module) -> tuple[int, int]:
    """Number of class tokens of a backbone, and number of all tokens in front of its patches.

    Returns:
        (0, 0) if it has no class token.
    """
    owner, _ = find_patch_embed(backbone)
    if getattr(owner, 'cls_token', None) is None:
        return 0, 0
    num_prefix = count_prefix_tokens(owner)
    if num_prefix == 0:  # mmseg can have an unused class token
        return 0, 0
    return (num_prefix if isinstance(owner, LocAtJumbo) else 1), num_prefix


def window_patches(layer: AttentionLayer, grid_size: tuple[int, int]) -> Tensor:
    """The patch number of every token of every window.

    Hosts differ in when they shift and pad. So the host itself makes the windows, from a map that
    holds the numbers of its patches.

    Args:
        layer: a layer that attends within windows.
        grid_size: patches along (rows, columns) of the map.

    Returns:
        ``[windows, N]``, row-major patch numbers; -1 is padding.
    """
    height, width = grid_size
    weight = layer.attn.qkv.weight
    number = torch.arange(1, height * width + 1, device=weight.device, dtype=weight.dtype)
    numbers = number.view(1, -1, 1).expand(-1, -1, weight.shape[1]).contiguous()  # [1, H·W, C]
    number_map = numbers.view(1, height, width, -1)
    seen: list[Tensor] = []
    handle = layer.attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        with torch.no_grad():
            if hasattr(layer.parent, 'w_msa'):  # ShiftWindowMSA of mmpretrain and mmseg
                layer.parent(numbers, grid_size)
            elif hasattr(layer.parent, '_attn'):  # timm's SwinTransformerBlock
                layer.parent._attn(number_map)
            else:  # mmpretrain's ViTSAM
                seen.append(window_partition(number_map, layer.parent.window_size)[0])
    finally:
        handle.remove()
    windows = seen[0]
    return windows.flatten(1, -2)[..., 0].round().long() - 1
