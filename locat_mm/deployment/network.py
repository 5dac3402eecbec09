"""A model as one function of an image tensor, which is what a deployed file holds."""

import json
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models.classifiers import BaseClassifier
from mmpretrain.models.heads import MultiLabelClsHead
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..version import __version__

__all__ = ['ImageNetwork', 'describe', 'has_windows', 'other_sizes', 'size_multiple']

#: task -> the outputs that can be asked for; the first is the default.
OUTPUTS = dict(
    segmentation=('logits', 'argmax'), classification=('logits', 'scores'), backbone=('features',)
)
#: Layers that attend within windows. The number of windows depends on the image.
_WINDOWS = ('WindowAttention', 'WindowMSA', 'ShiftWindowMSA', 'WindowMSAV2')


class ImageNetwork(nn.Module):
    """From an image to one kind of output, without OpenMMLab's samples around it.

    Args:
        model: a segmentor of mmseg or a classifier of mmpretrain.
        part: ``'model'``, or ``'backbone'`` for its feature maps alone.
        output: ``'logits'``; ``'argmax'`` for the class of each pixel (segmentors); ``'scores'``
            for probabilities (classifiers); None for logits, or the backbone's features.
        with_normalization: subtract the mean and divide by the standard deviation of the model's
            data preprocessor first. Without it the caller does.

    Raises:
        ValueError: if the model is of another kind, or cannot give this output.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,
        part: str = 'model',
        output: str | None = None,
        with_normalization: bool = False,
    ) -> None:
        super().__init__()
        self.task = _task(model, part)
        choices = OUTPUTS[self.task]
        if output is not None and output not in choices:
            raise ValueError(
                f'output {output!r} is not for {self.task}: choose from {", ".join(choices)}'
            )
        self.output = output or choices[0]
        self.with_normalization = with_normalization
        mean, std = _normalization(model)
        if with_normalization and mean is None:
            raise ValueError(
                "the model's data preprocessor has no mean and std: nothing to normalize"
            )
        if mean is not None and std is not None:
            self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1))
            self.register_buffer('std', torch.tensor(std).view(-1, 1, 1))
        self.model = model.backbone if part == 'backbone' else model
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            image: ``[B, 3, H, W]``; values 0..255 with normalization, else normalized ones.

        Returns:
            the outputs, in the order of :meth:`output_names`: a segmentor's logits
            ``[B, classes, H, W]`` or classes ``[B, H, W]``, a classifier's ``[B, classes]``, or
            each tensor that the backbone returns.
        """
        if self.with_normalization:
            image = (image - self.mean) / self.std
        if self.task == 'segmentation':
            return (self._segment(image),)
        if self.task == 'backbone':
            return tuple(tree_leaves(self.model(image)))
        logits = self.model(image, mode='tensor')
        if self.output == 'logits':
            return (logits,)
        is_multi_label = isinstance(self.model.head, MultiLabelClsHead)
        return (logits.sigmoid() if is_multi_label else logits.softmax(dim=1),)

    def _segment(self, image: Tensor) -> Tensor:
        logits = self.model.encode_decode(image, [dict(img_shape=image.shape[2:])])
        if self.output == 'logits':
            return logits
        if self.model.out_channels == 1:
            return (logits.sigmoid() > self.model.decode_head.threshold).squeeze(1).long()
        return logits.argmax(dim=1)

    def output_names(self, outputs: tuple[Tensor, ...]) -> list[str]:
        """Names for a file's outputs: ``logits``, ``argmax``, ``scores``, ``features_0``, ..."""
        if self.task != 'backbone':
            return [self.output]
        return [f'features_{index}' for index in range(len(outputs))]


def describe(
    network: ImageNetwork, model: Any, classes: list[str] | None, size: tuple[int, int] | None
) -> dict[str, str]:
    """What the user of an exported file has to know, as strings.

    Args:
        network: what is exported.
        model: what it was made from.
        classes: names of the classes, if known.
        size: the only size (rows, columns) that the file takes; None for any multiple.
    """
    mean, std = _normalization(model)
    needs = mean is not None and not network.with_normalization
    multiple = size_multiple(network)
    return dict(
        producer=f'locat_mm {__version__}',
        task=network.task,
        output=network.output,
        layout='float32 [batch, channels, height, width]',
        channel_order=_channel_order(model),
        input_values=_input_values(network, needs),
        mean=json.dumps(mean if needs else None),
        std=json.dumps(std if needs else None),
        size=json.dumps(size),
        size_multiple=json.dumps(None if size else multiple),
        classes=json.dumps(classes),
    )


def _input_values(network: ImageNetwork, needs_normalization: bool) -> str:
    if network.with_normalization:
        return '0..255; the file normalizes them itself'
    if needs_normalization:
        return '(pixel - mean) / std of pixels in 0..255'
    return '0..255'


def size_multiple(network: nn.Module) -> int:
    """Height and width of an image must be multiples of this many pixels: the patch.

    Raises:
        ValueError: if the network begins with no convolution.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return max(module.stride)  # type: ignore[call-overload]
    raise ValueError('the backbone has no convolution to tell the size of a patch from')


def other_sizes(network: nn.Module, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The example's size and two more: one smaller and higher, one larger and wider."""
    step = size_multiple(network)
    rows, columns = size
    smaller = max(columns - 2 * step, 2 * step)
    return [size, (rows + step, smaller), (rows + 2 * step, columns + 5 * step)]


def has_windows(network: nn.Module) -> bool:
    """Whether it attends within windows, as Swin does."""
    return any(
        base.__name__ in _WINDOWS for module in network.modules() for base in type(module).__mro__
    )


def _task(model: Any, part: str) -> str:
    if part == 'backbone':
        if not hasattr(model, 'backbone'):
            raise ValueError(f'{type(model).__name__} has no backbone')
        return 'backbone'
    if isinstance(model, BaseSegmentor):
        return 'segmentation'
    if isinstance(model, BaseClassifier):
        return 'classification'
    raise ValueError(
        f'{type(model).__name__} is neither a segmentor nor a classifier; its backbone alone can '
        'be exported (--part backbone)'
    )


def _normalization(model: Any) -> tuple[list[float] | None, list[float] | None]:
    preprocessor: BaseDataPreprocessor = model.data_preprocessor
    if not getattr(preprocessor, '_enable_normalize', False):
        return None, None
    return preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()


def _channel_order(model: Any) -> str:
    # mmseg's and mmpretrain's preprocessors name the same switch differently. Images are read BGR.
    preprocessor = model.data_preprocessor
    is_flipped = getattr(preprocessor, 'channel_conversion', False) or getattr(
        preprocessor, 'to_rgb', False
    )
    return 'RGB' if is_flipped else 'BGR'
