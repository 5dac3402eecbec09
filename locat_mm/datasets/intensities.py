"""Transforms of intensities for images that are no 8-bit colour pictures."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from ..registry import TRANSFORMS, register

__all__ = ['CTWindow', 'RandomIntensity']


@register(TRANSFORMS)
class CTWindow(BaseTransform):
    """Map Hounsfield units to 0..255 through a window, as radiologists view a CT.

    Values up to level - window / 2 become 0, values from level + window / 2 become 255, and
    those between are scaled linearly. Several windows give a channel each.

    Args:
        window: width in Hounsfield units; or a list of pairs (width, level), a channel per pair,
            such as ``[(400, 40), (1500, -600), (2000, 400)]`` for soft tissue, lung and bone.
        level: centre in Hounsfield units, for a single width.

    Raises:
        ValueError: if a width is not positive, or ``level`` is missing or given with a list.
    """

    def __init__(
        self, window: float | Sequence[Sequence[float]], level: float | None = None
    ) -> None:
        if isinstance(window, (int, float)):
            if level is None:
                raise ValueError(f'CTWindow(window={window}) needs a level')
            pairs = [(float(window), float(level))]
        else:
            if level is not None:
                raise ValueError('CTWindow takes pairs (width, level), or one window and one level')
            if not window or any(len(pair) != 2 for pair in window):
                raise ValueError(f'windows are pairs (width, level), got {window!r}')
            pairs = [(float(width), float(centre)) for width, centre in window]
        if min(width for width, _ in pairs) <= 0:
            raise ValueError(f'the width of a window is positive, got {window!r}')
        self.windows = pairs

    def transform(self, results: dict) -> dict:
        """Replace ``img``, ``[H, W]`` or ``[H, W, C]``, by float32 ``[H, W, C]`` within 0..255.

        Raises:
            ValueError: if there are several windows and several channels.
        """
        image = np.asarray(results['img'], np.float32)
        image = image[..., None] if image.ndim == 2 else image
        if len(self.windows) > 1 and image.shape[2] != 1:
            raise ValueError(
                f'{results.get("img_path")} has {image.shape[2]} channels: several windows are for '
                'one channel'
            )
        parts = [
            np.clip((image - (level - width / 2)) * (255 / width), 0, 255)
            for width, level in self.windows
        ]
        results['img'] = np.concatenate(parts, axis=2)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(window={self.windows})'


@register(TRANSFORMS)
class RandomIntensity(BaseTransform):
    """Change brightness and contrast at random, for any number of channels and any range.

    In place of mmseg's ``PhotoMetricDistortion``, which clips to 8 bits and takes three channels:
    ``x -> (x - m) * c + m + b * s`` with the image's own mean m and deviation s of each channel.
    Contrast c is drawn from 1 ± ``contrast``, brightness b from ± ``brightness``; both are the
    same for all channels, so that ratios of bands stay alike.

    Args:
        brightness: in deviations of a channel.
        contrast: share of the contrast, below 1.
        prob: share of images that are changed.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, brightness: float = 0.2, contrast: float = 0.2, prob: float = 0.5) -> None:
        if brightness < 0 or not 0 <= contrast < 1 or not 0 <= prob <= 1:
            raise ValueError(
                'brightness is not negative, contrast is in [0, 1), prob in [0, 1]; got '
                f'{brightness=}, {contrast=}, {prob=}'
            )
        self.brightness = brightness
        self.contrast = contrast
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Replace ``img``, ``[H, W]`` or ``[H, W, C]``; floating-point results are not clipped."""
        if np.random.rand() >= self.prob:
            return results
        contrast = 1 + np.random.uniform(-self.contrast, self.contrast)
        brightness = np.random.uniform(-self.brightness, self.brightness)
        image = np.asarray(results['img'], np.float32)
        mean = image.mean(axis=(0, 1), dtype=np.float64)
        deviation = image.std(axis=(0, 1), dtype=np.float64)
        offset = mean * (1 - contrast) + brightness * deviation
        results['img'] = image * np.float32(contrast) + offset.astype(np.float32)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(brightness={self.brightness}, contrast={self.contrast}, '
            f'prob={self.prob})'
        )
