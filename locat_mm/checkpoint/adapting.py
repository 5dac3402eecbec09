"""Weights for another image size or another number of channels, converted as timm does."""

import math
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from .reading import StateDict

__all__ = ['adapt_channels', 'is_of_channels', 'resize']

_BIAS_TABLE = 'relative_position_bias_table'


def adapt_channels(module: nn.Module, state: StateDict) -> dict[str, Tensor]:
    """Adapt the filters that read the image to the number of channels of a model.

    These are the first convolution of the backbone, and others with as many channels in the
    model and in the file (CrossViT has two patch embeddings). timm's ``adapt_input_conv``, which
    timm's own loading uses too, sums the filters for one channel; for other numbers it repeats
    them and scales them by (channels of the file) / (channels of the model), so that equal
    channels give the same sum. The log says so.

    Args:
        module: a bare backbone or a model with a ``backbone``.
        state: weights under the names of ``module``. Weights that fit are returned as they are.
    """
    prefix, backbone = '', module
    if hasattr(module, 'backbone'):
        prefix, backbone = 'backbone.', module.backbone  # type: ignore[assignment]
    convolutions = {
        f'{prefix}{name}.weight': part
        for name, part in backbone.named_modules()
        if isinstance(part, nn.Conv2d) and part.groups == 1
    }
    first = next(iter(convolutions), None)
    if first is None or first not in state or not _can_adapt(state[first], convolutions[first]):
        return dict(state)
    own, given = convolutions[first].in_channels, state[first].shape[1]
    adapted = {
        key: adapt_input_conv(own, state[key], given)
        for key, part in convolutions.items()
        if part.in_channels == own
        and key in state
        and _can_adapt(state[key], part)
        and state[key].shape[1] == given
    }
    how = 'summed' if own == 1 else f'repeated and scaled by {given}/{own}'
    print_log(f'{", ".join(adapted)}: filters of {given} channels {how} for {own}', 'current')
    return {**state, **adapted}


def _can_adapt(given: Tensor, convolution: nn.Conv2d) -> bool:
    own = convolution.weight
    return given.is_floating_point() and is_of_channels(tuple(given.shape), tuple(own.shape))


def is_of_channels(given: Sequence[int], own: Sequence[int]) -> bool:
    """Whether two shapes of filters ``[out, in, rows, columns]`` differ in the channels alone."""
    is_filter = len(given) == len(own) == 4
    return is_filter and (given[0], *given[2:]) == (own[0], *own[2:]) and given[1] != own[1]


def resize(backbone: Any, state: StateDict, is_square: bool) -> dict[str, Tensor]:
    """Resize position embeddings and Swin's bias tables to the size of a backbone.

    Args:
        backbone: its sizes are read.
        state: weights under its own names.
        is_square: a position embedding belongs to a square grid even if its length is that of the
            backbone's grid.
    """
    resized = dict(state)
    own, given = getattr(backbone, 'pos_embed', None), state.get('pos_embed')
    can_resize = hasattr(getattr(backbone, 'patch_embed', None), 'num_patches')
    if own is not None and given is not None and can_resize:
        if is_square or given.shape != own.shape:
            resized['pos_embed'] = _resize_pos_embed(backbone, own, given)
    for name, module in backbone.named_modules():
        key, table = f'{name}.{_BIAS_TABLE}', getattr(module, _BIAS_TABLE, None)
        given = state.get(key)
        if table is None or given is None or given.shape == table.shape:
            continue
        if given.ndim == 2 and given.shape[1] == table.shape[1]:
            resized[key] = resize_rel_pos_bias_table(given, module.window_size, table.shape)
            print_log(f'{key} resized from {len(given)} to {len(table)} positions', 'current')
    return resized


def _resize_pos_embed(backbone: Any, own: Tensor, given: Tensor) -> Tensor:
    num_prefix = own.shape[1] - backbone.patch_embed.num_patches
    side = math.isqrt(max(given.shape[1] - num_prefix, 0))
    grid = list(backbone.patch_embed.grid_size)
    if given.ndim != 3 or given.shape[2] != own.shape[2] or grid == [side, side]:
        return given
    if side < 1 or side**2 + num_prefix != given.shape[1]:
        return given  # not a square grid: reported as misshapen
    print_log(f'position embedding resized from {side}×{side} to {grid[0]}×{grid[1]}', 'current')
    return resample_abs_pos_embed(given, grid, [side, side], num_prefix)
