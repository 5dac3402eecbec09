"""Rasters and volumes of a user: read through the loading transform of a config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import TRANSFORMS

from ..config import kind_of
from ..datasets import BadSampleError
from ..datasets.channel_checks import LOADERS
from ..datasets.file_annotations import EMPTY, NODATA
from ..datasets.nifti import count_slices
from .pictures import SUFFIXES, Picture
from .results import ResultWriter

__all__ = ['FileReader', 'find_loader', 'segment_file', 'suffixes_of']

_VOLUMES = ('.nii', '.nii.gz')
_RASTERS = (*SUFFIXES, '.img', '.jp2', '.vrt')


def find_loader(cfg: Any) -> dict | None:
    """The transform of a config's test pipeline that loads rasters or volumes, if it has one."""
    pipeline = ((cfg.get('test_dataloader') or {}).get('dataset') or {}).get('pipeline') or ()
    return next((step for step in pipeline if kind_of(step) in LOADERS), None)


def suffixes_of(cfg: Any) -> tuple[str, ...]:
    """Suffixes of the files that a config's test pipeline loads."""
    loader = find_loader(cfg)
    if loader is None:
        return SUFFIXES
    return _VOLUMES if kind_of(loader) == 'LoadNIfTI' else _RASTERS


class FileReader:
    """Reads the samples of a file.

    Args:
        step: config of the loading transform.

    Attributes:
        axis: that slices of a volume are taken along; None for rasters.
    """

    def __init__(self, step: dict) -> None:
        self._load: Any = TRANSFORMS.build(step)
        self.axis = self._load.axis if kind_of(step) == 'LoadNIfTI' else None

    def __call__(self, path: Path) -> Iterator[dict | None]:
        """The sample of a raster, or those of the slices of a volume.

        Yields:
            ``img`` and what belongs to it; None for a slice without data.

        Raises:
            BadSampleError: if the file cannot be read.
        """
        if self.axis is None:
            yield self._load(dict(img_path=str(path)))
            return
        for index in range(count_slices(str(path), self.axis)):
            try:
                yield self._load(dict(img_path=str(path), slice_index=index))
            except BadSampleError as error:
                if error.kind != EMPTY:
                    raise
                yield None


def segment_file(
    model: Any, writer: ResultWriter, picture: Picture, samples: Iterator[dict | None]
) -> None:
    """Segment a raster, or all slices of a volume, and write the mask.

    Args:
        model: a :class:`locat_mm.cli.inference.Segmentor` with a reader.
        writer: of the results.
        picture: the file.
        samples: of the file, from :class:`FileReader`.
    """
    axis = model.reader.axis
    if axis is None:
        (sample,) = samples
        assert sample is not None
        image, nodata = sample['img'], sample.get(NODATA)
        writer.write_raster(picture, image, model(sample), nodata)
        return
    masks: list[np.ndarray | None] = []
    shown: tuple[int, np.ndarray] | None = None
    middle = count_slices(str(picture.path), axis) // 2
    for index, sample in enumerate(samples):
        if sample is None:
            masks.append(None)
            continue
        image, nodata = sample['img'], sample.get(NODATA)
        if shown is None or index <= middle:
            shown = index, image
        mask = writer.as_values(model(sample), nodata)
        masks.append(mask)
    if shown is None:
        raise BadSampleError(f'{picture.path} has no data in any slice', EMPTY)
    writer.write_volume(picture, masks, shown, axis)
