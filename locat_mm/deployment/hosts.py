"""Host code whose branches on sizes would fix an exported model to one size, without them.

timm avoids such branches while a model is exported; OpenMMLab does not.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import mmcv.cnn.bricks.transformer
import mmpretrain.models.utils
import mmseg.models.utils.embed
import torch
from mmpretrain.models.utils.attention import ShiftWindowMSA as ClassifierShiftWindowMSA
from mmseg.models.backbones.swin import ShiftWindowMSA as SegmentorShiftWindowMSA
from mmseg.models.backbones.vit import VisionTransformer as SegmentorViT
from timm.layers import pos_embed_sincos, to_2tuple
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ['any_batch_size', 'any_image_size']


@contextmanager
def any_image_size(network: nn.Module) -> Iterator[None]:
    """Trace images whose sides are multiples of the patch, with no branch on their size.

    Paddings to the patch are left out, position embeddings are always resized (to the size that
    they have, this changes no number), and adaptive pooling becomes two matrix products.
    """
    with ExitStack() as stack:
        for library in (mmcv.cnn.bricks.transformer, mmseg.models.utils.embed):
            padding = library.AdaptivePadding
            stack.enter_context(patch.object(padding, 'forward', lambda self, x: x))
        for module in network.modules():
            if getattr(module, 'dynamic_img_pad', False):  # timm's patch embedding
                stack.enter_context(patch.object(module, 'dynamic_img_pad', False))
        resize = mmpretrain.models.utils.resize_pos_embed
        for name, file in list(sys.modules.items()):
            if name.startswith('mmpretrain.') and vars(file).get('resize_pos_embed') is resize:
                stack.enter_context(patch.object(file, 'resize_pos_embed', _resize_pos_embed))
        # float() of a symbolic size is a constant: in the rotary embedding of DINOv3.
        stack.enter_context(patch.object(pos_embed_sincos, 'float', torch.sym_float, create=True))
        stack.enter_context(patch.object(SegmentorViT, '_pos_embeding', _embed_positions))
        stack.enter_context(patch.object(nn.AdaptiveAvgPool2d, 'forward', _pool))
        yield


@contextmanager
def any_batch_size() -> Iterator[None]:
    """Trace OpenMMLab's windows with the batch size left open."""

    def merge(windows: Tensor, height: int, width: int, window_size: int) -> Tensor:
        rows, columns = height // window_size, width // window_size
        x = windows.view(-1, rows, columns, window_size, window_size, windows.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])

    def merge_own(self: Any, windows: Tensor, height: int, width: int) -> Tensor:
        return merge(windows, height, width, self.window_size)

    with (
        patch.object(ClassifierShiftWindowMSA, 'window_reverse', staticmethod(merge)),
        patch.object(SegmentorShiftWindowMSA, 'window_reverse', merge_own),
    ):
        yield


def _resize_pos_embed(
    pos_embed: Tensor,
    src_shape: tuple[int, int],
    dst_shape: tuple[int, int],
    mode: str = 'bicubic',
    num_extra_tokens: int = 1,
) -> Tensor:
    """mmpretrain's, also if both shapes are equal."""
    extra, patches = pos_embed[:, :num_extra_tokens], pos_embed[:, num_extra_tokens:]
    maps = patches.unflatten(1, tuple(src_shape)).permute(0, 3, 1, 2).float()
    maps = F.interpolate(maps, size=tuple(dst_shape), mode=mode, align_corners=False)
    return torch.cat((extra, maps.flatten(2).transpose(1, 2).to(pos_embed.dtype)), dim=1)


def _embed_positions(
    self: Any, patched_img: Tensor, hw_shape: tuple[int, int], pos_embed: Tensor
) -> Tensor:
    """mmseg's, also if both shapes are equal."""
    shape = tuple(side // self.patch_size for side in self.img_size)
    pos_embed = self.resize_pos_embed(pos_embed, hw_shape, shape, self.interpolate_mode)
    return self.drop_after_pos(patched_img + pos_embed)


def _pool(self: nn.AdaptiveAvgPool2d, x: Tensor) -> Tensor:
    rows, columns = to_2tuple(self.output_size)
    return _bins(x.shape[-2], rows, x) @ x @ _bins(x.shape[-1], columns, x).mT


def _bins(length: int, count: int, like: Tensor) -> Tensor:
    """``[count, length]``: the weights that average each of ``count`` bins along an axis."""
    index = torch.arange(count, device=like.device)[:, None]
    place = torch.arange(length, device=like.device)
    start = torch.div(index * length, count, rounding_mode='floor')
    stop = torch.div((index + 1) * length + count - 1, count, rounding_mode='floor')
    inside = ((place >= start) & (place < stop)).to(like.dtype)
    return inside / inside.sum(-1, keepdim=True)
