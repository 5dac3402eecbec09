"""Annotations of files that OpenCV and Pillow do not read: what all kinds share."""

from typing import Any, ClassVar

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations

from .file_damage import BadSampleError

__all__ = ['EMPTY', 'NODATA', 'FileAnnotations', 'fill_nodata', 'keep_nodata']

#: Key of a sample: where an image has no data, bool ``[H, W]``. Absent if it has data everywhere.
NODATA = 'nodata'
#: Kind of the error for an image without data.
EMPTY = 'image without data'
#: Labels that mmseg's ``uint8`` masks can hold.
_HIGHEST = 255
#: Largest distance from a whole number, of labels that a file stores by a scale and an offset.
_ROUNDING = 1e-3


class FileAnnotations(LoadAnnotations):
    """mmseg's ``LoadAnnotations`` with another reader of the file.

    mmseg reads and converts in one method, so the conversion is repeated here: value 0
    (``reduce_zero_label`` of the data set) and classes of a subset (``label_map``). Pixels where
    the image has no data get ``ignore_index``.

    Args:
        reduce_zero_label: None takes the data set's.
        ignore_index: label of pixels without data.
    """

    #: Files that this transform checks itself; see :class:`GuardedPipeline`.
    CHECKED_PATHS: ClassVar[tuple[str, ...]] = ('seg_map_path',)

    def __init__(self, reduce_zero_label: bool | None = None, ignore_index: int = 255) -> None:
        super().__init__(reduce_zero_label=reduce_zero_label)
        self.ignore_index = ignore_index

    def _read(self, results: dict) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels ``[H, W]`` of any type of number, and where the file has none (bool) or None."""
        raise NotImplementedError

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        given, unlabelled = self._read(results)
        shape = tuple(results['ori_shape'][:2])
        if given.shape != shape:
            raise BadSampleError(
                f'{path}: the mask has shape {given.shape}, its image {results["img_path"]} '
                f'{shape}',
                'mask of another size',
            )
        known = given if unlabelled is None else given[~unlabelled]
        _check_values(path, known)
        labels = np.full(shape, self.ignore_index, np.uint8)
        where = slice(None) if unlabelled is None else ~unlabelled
        labels[where] = self._convert(np.rint(known).astype(np.uint8), results)
        nodata = results.get(NODATA)
        if nodata is not None:
            labels[nodata] = self.ignore_index
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')

    def _convert(self, labels: np.ndarray, results: dict) -> np.ndarray:
        in_dataset = results['reduce_zero_label']
        if self.reduce_zero_label not in (None, in_dataset):
            raise ValueError(
                f'reduce_zero_label={self.reduce_zero_label} in {type(self).__name__}, but '
                f'{in_dataset} in the data set'
            )
        if in_dataset:
            # 0 -> 255, 255 -> 255, others one less.
            labels = np.where(labels == 255, labels, labels - np.uint8(1))
        label_map = results.get('label_map')
        if label_map is not None:
            table = np.arange(256, dtype=np.uint8)
            table[list(label_map)] = list(label_map.values())
            labels = table[labels]
        return labels


def _check_values(path: str, labels: np.ndarray) -> None:
    if not labels.size:
        return
    if labels.dtype.kind == 'f' and not (np.abs(labels - np.rint(labels)) < _ROUNDING).all():
        raise BadSampleError(
            f'{path}: a mask holds whole numbers, and this one holds fractions or NaN',
            'mask values',
        )
    low, high = labels.min(), labels.max()
    if low < 0 or high > _HIGHEST:
        raise BadSampleError(
            f'{path}: the labels are from {low:g} to {high:g}, and mmseg takes 0 to {_HIGHEST}',
            'mask values',
        )


def keep_nodata(
    results: dict, image: np.ndarray, nodata: np.ndarray, fill: Any, path: str
) -> np.ndarray:
    """Fill pixels without data, and store in a sample which they are.

    Args:
        results: the sample.
        image: ``[H, W, C]``.
        nodata: where a channel has no data, bool ``[H, W, C]``.
        fill: see :func:`fill_nodata`.
        path: of the image.

    Returns:
        the image, filled.

    Raises:
        BadSampleError: if no pixel has data in all channels.
    """
    where = nodata.any(axis=2)
    results.pop(NODATA, None)
    if not where.any():
        return image
    if where.all():
        raise BadSampleError(
            f'{path} is empty: each of its {where.shape[1]}×{where.shape[0]} pixels has no data in '
            'at least one channel',
            EMPTY,
        )
    results[NODATA] = where
    return fill_nodata(image, nodata, fill)


def fill_nodata(image: np.ndarray, nodata: np.ndarray, fill: Any) -> np.ndarray:
    """Give pixels without data a value.

    Args:
        image: ``[H, W, C]``.
        nodata: bool ``[H, W, C]``.
        fill: a number, a number per channel, or None for the mean of each channel's other pixels.
    """
    if fill is None:
        valid = ~nodata
        total = np.where(valid, image, 0).sum(axis=(0, 1), dtype=np.float64)
        fill = total / valid.sum(axis=(0, 1))
    return np.where(nodata, np.asarray(fill, image.dtype), image)
