"""mmseg's preprocessor for images of any number of channels."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.data_preprocessor import SegDataPreProcessor

from ...registry import MODELS, register

__all__ = ['MultiChannelSegDataPreProcessor']


@register(MODELS)
class MultiChannelSegDataPreProcessor(SegDataPreProcessor):
    """mmseg's ``SegDataPreProcessor`` with a mean and a deviation for each of any channels.

    mmengine's base class takes one or three values only. Batches, padding and the order of the
    steps are mmseg's. Channels stay in the order that the loading transform gives them.

    Args:
        mean: of each channel, as many as the images have.
        std: deviation of each channel, as many, positive.
        **kwargs: of ``SegDataPreProcessor``, without ``bgr_to_rgb`` and ``rgb_to_bgr``.

    Raises:
        ValueError: if ``mean`` and ``std`` differ in length or are empty, if a deviation is not
            positive, or if the order of colours is to be changed.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        for name in ('bgr_to_rgb', 'rgb_to_bgr'):
            if kwargs.pop(name, False):
                raise ValueError(
                    f'{name}=True reverses channels, and here they stay in the order of the '
                    f'loading transform: set {name}=False'
                )
        if not mean or len(mean) != len(std):
            raise ValueError(
                f'mean and std need a value per channel, got {len(mean)} and {len(std)} values'
            )
        if min(std) <= 0:
            raise ValueError(f'every deviation must be positive, got std={list(std)}')
        super().__init__(**kwargs)
        self._enable_normalize = True
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(
                name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), False
            )

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """As mmseg's.

        Raises:
            ValueError: if an image has another number of channels.
        """
        samples = data.get('data_samples') or [None] * len(data['inputs'])
        for image, sample in zip(data['inputs'], samples, strict=True):
            if len(image) != len(self.mean):
                name = getattr(sample, 'img_path', None) or 'an image'
                raise ValueError(
                    f'{name} has {len(image)} channels, and data_preprocessor.mean has '
                    f'{len(self.mean)} values: choose the channels in the loading transform '
                    '(LoadGeoTIFF: bands, LoadNIfTI: channels), or correct mean, std and '
                    'in_channels'
                )
        return super().forward(data, training)
