"""Mean and deviation of each channel over a data set, in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .file_annotations import NODATA
from .guarded_pipeline import GuardedPipeline
from .intensities import CTWindow

__all__ = ['ChannelStatistics', 'measure_channels']


@dataclass
class ChannelStatistics:
    """Sums over pixels, of which means and deviations follow.

    Images are merged by the parallel algorithm of Chan, Golub and LeVeque (1979), in float64: no
    digits are lost where deviations are small beside means.

    Attributes:
        images: number of them.
        pixels: number of pixels with data.
        nodata: number of pixels without.
        mean: of each channel, ``[C]``.
        squares: sum of squared distances from the mean, ``[C]``.
    """

    images: int
    pixels: int
    nodata: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of_image(cls, image: np.ndarray, nodata: np.ndarray | None) -> 'ChannelStatistics':
        """
        Args:
            image: ``[H, W]`` or ``[H, W, C]``.
            nodata: pixels to leave out, bool ``[H, W]``, or None.
        """
        channels = image.shape[2] if image.ndim > 2 else 1
        values = image.reshape(-1, channels)
        if nodata is not None:
            values = values[~nodata.reshape(-1)]
        values = values.astype(np.float64)
        total = image.shape[0] * image.shape[1]
        mean = values.mean(axis=0)
        return cls(1, len(values), total - len(values), mean, ((values - mean) ** 2).sum(axis=0))

    def __add__(self, other: 'ChannelStatistics') -> 'ChannelStatistics':
        pixels = self.pixels + other.pixels
        apart = other.mean - self.mean
        return ChannelStatistics(
            self.images + other.images,
            pixels,
            self.nodata + other.nodata,
            self.mean + apart * (other.pixels / pixels),
            self.squares + other.squares + apart**2 * (self.pixels * other.pixels / pixels),
        )

    @property
    def std(self) -> np.ndarray:
        """Deviation of each channel, over all pixels (divided by their number)."""
        return np.sqrt(self.squares / self.pixels)


class _Images(Dataset):
    """Statistics of each image of a data set, after its loading transforms alone."""

    def __init__(self, dataset: Any) -> None:
        loading = [step for step in dataset.pipeline.transforms if _loads(step)]
        dataset.pipeline = Compose(loading)
        dataset.pipeline = GuardedPipeline(dataset)
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[str, ChannelStatistics]:
        info = self.dataset.get_data_info(index)
        data = self.dataset.pipeline(info)
        statistics = ChannelStatistics.of_image(data['img'], data.get(NODATA))
        return str(data.get('img_path', f'sample {index}')), statistics


def _loads(transform: Any) -> bool:
    name = type(transform).__name__
    # Windows change the values that are normalised later.
    return isinstance(transform, CTWindow) or name.startswith('Load') and 'Annotation' not in name


def measure_channels(datasets: Sequence[Any], num_workers: int = 0) -> ChannelStatistics:
    """Measure all images of data sets, which a progress bar shows.

    Args:
        datasets: of mmengine's kind, no wrappers. Their pipelines are cut to the loading
            transforms.
        num_workers: processes that read.

    Raises:
        BadSampleError: a ValueError with the file's name, if an image is damaged.
        ValueError: if there is no image, images differ in the number of channels, or a channel
            has one value everywhere.
    """
    total: ChannelStatistics | None = None
    first = ''
    with tqdm(total=sum(map(len, datasets)), unit='image', desc='channels') as bar:
        for dataset in datasets:
            loader = DataLoader(_Images(dataset), None, num_workers=num_workers)
            for path, found in loader:
                if total is not None and len(found.mean) != len(total.mean):
                    raise ValueError(
                        f'{path} has {len(found.mean)} channels, {first} {len(total.mean)}: choose '
                        'channels in the loading transform (LoadGeoTIFF: bands)'
                    )
                first = first or path
                total = found if total is None else total + found
                bar.update()
    if total is None:
        raise ValueError('the data set has no images: check ann_file, data_prefix and img_suffix')
    constant = np.flatnonzero(total.std == 0)
    if constant.size:
        raise ValueError(
            f'channel {constant[0]} (counted from 0) is {total.mean[constant[0]]:g} in every '
            'pixel, so it cannot be divided by its deviation: leave it out'
        )
    return total
