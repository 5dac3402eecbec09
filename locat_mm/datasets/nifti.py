"""NIfTI volumes as sets of slices, read by nibabel."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset

from ..helpers import check_choice, import_optional
from ..registry import DATASETS, TRANSFORMS, register
from .file_annotations import FileAnnotations, keep_nodata
from .file_damage import BadSampleError

__all__ = ['LoadNIfTI', 'LoadNIfTIAnnotations', 'NIfTISlices', 'count_slices', 'open_volume']

#: Largest distance between the corners of labels and of their image, in voxels.
_TOLERANCE = 0.05
#: Keys of a sample.
_INDEX, _AXIS, _VOLUME = 'slice_index', 'slice_axis', 'volume'


@contextmanager
def open_volume(path: str) -> Iterator[Any]:
    """Open a NIfTI file; nibabel reads voxels only when they are used.

    Raises:
        BadSampleError: if it cannot be opened, or not be read inside of the block.
        ModuleNotFoundError: if nibabel is not installed.
    """
    nibabel = import_optional('nibabel', 'medical', 'reading NIfTI files')
    try:
        yield nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, EOFError, OSError, zlib.error) as error:
        raise BadSampleError(f'{path} cannot be read by nibabel: {error}') from None


def count_slices(path: str, axis: int) -> int:
    """Number of slices of a volume. Only its header is read.

    Raises:
        BadSampleError: as :func:`open_volume`; or if it has fewer than two axes.
    """
    with open_volume(path) as volume:
        return _shape(path, volume)[axis]


def _shape(path: str, volume: Any) -> tuple[int, ...]:
    """Shape (I, J, K) or (I, J, K, channels)."""
    shape = volume.shape
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4:
        raise BadSampleError(
            f'{path} has shape {volume.shape}: a volume has 3 axes, or 4 with channels'
        )
    return (*shape, 1) if len(shape) == 2 else shape


def _read_slice(path: str, volume: Any, axis: int, index: int | None) -> np.ndarray:
    """One slice, float32 ``[rows, columns, channels]``, with the scaling in the file applied."""
    shape = _shape(path, volume)
    if index is None:
        if shape[axis] > 1:
            raise BadSampleError(
                f'{path} has {shape[axis]} slices along axis {axis}, and the data set does not say '
                "which: use type='locat_mm.NIfTISlices' as the data set"
            )
        index = 0
    if index >= shape[axis]:
        raise BadSampleError(f'{path} has {shape[axis]} slices, so there is no slice {index}')
    where: list[Any] = [slice(None)] * 3
    where[axis] = index
    if len(volume.shape) == 2:
        values = np.asarray(volume.dataobj, np.float32)[..., None]
        values = values[tuple(where)]
    else:
        rest = len(volume.shape) - 3
        values = np.asarray(volume.dataobj[tuple([*where, *[slice(None)] * rest])], np.float32)
    values = values.reshape(*values.shape[:2], -1)
    # As mmseg's LoadBiomedicalImageFromFile: the later axis of the file gives the rows.
    return np.ascontiguousarray(values.transpose(1, 0, 2))


@register(TRANSFORMS)
class LoadNIfTI(BaseTransform):
    """Load a slice of a NIfTI volume.

    mmseg's ``LoadBiomedicalImageFromFile`` loads a whole volume ``[N, Z, Y, X]``, which 2-D models
    do not take. Here a sample is a slice: :class:`NIfTISlices` lists them as ``slice_index``. Rows
    are the later axis of the file, as in mmseg (along axis 2: rows J, columns I). Axes are those
    of the file; nothing is turned to a common orientation.

    Adds ``img`` (float32 ``[H, W, channels]``), ``img_shape``, ``ori_shape``, ``volume`` (shape and
    affine), and ``nodata`` (bool ``[H, W]``) if there are NaN that ``nan`` allows.

    Args:
        axis: of the file that slices are taken along, 0 to 2.
        channels: numbers from 0 along the fourth axis, such as the sequences of an MRI; None: all.
        nan: ``'error'``, or ``'nodata'`` to give such pixels the label ``ignore_index``.
        fill: their value: a number, or one per channel; None: the mean of the channel's other
            pixels in this slice.

    Raises:
        ModuleNotFoundError: if nibabel is not installed.
        ValueError: if an argument has another value.
    """

    CHECKED_PATHS: ClassVar[tuple[str, ...]] = ('img_path',)

    def __init__(
        self,
        axis: int = 2,
        channels: Sequence[int] | None = None,
        nan: str = 'error',
        fill: float | Sequence[float] | None = None,
    ) -> None:
        import_optional('nibabel', 'medical', 'LoadNIfTI')
        _check_axis(axis)
        check_choice('nan', nan, ('error', 'nodata'))
        if channels is not None and (not channels or min(channels) < 0):
            raise ValueError(f'channels are numbers from 0, got {channels!r}')
        self.axis = axis
        self.channels = None if channels is None else list(channels)
        self.nan = nan
        self.fill = fill

    def transform(self, results: dict) -> dict:
        """
        Raises:
            BadSampleError: a ValueError with the file's name, if the file cannot be read, a
                channel is missing, or there are NaN that are not allowed.
            ValueError: if the data set takes slices along another axis.
        """
        path, index = results['img_path'], results.get(_INDEX)
        if results.get(_AXIS, self.axis) != self.axis:
            raise ValueError(
                f'axis={self.axis} in {type(self).__name__}, but {results[_AXIS]} in NIfTISlices'
            )
        with open_volume(path) as volume:
            image = _read_slice(path, volume, self.axis, index)
            results[_VOLUME] = _shape(path, volume)[:3], np.asarray(volume.affine)
        if self.channels is not None:
            if max(self.channels) >= image.shape[2]:
                raise BadSampleError(
                    f'{path} has {image.shape[2]} channels: channels={self.channels} is too much',
                    'band missing',
                )
            image = np.ascontiguousarray(image[..., self.channels])
        wrong = ~np.isfinite(image)
        if wrong.any() and self.nan == 'error':
            raise BadSampleError(
                f'{path}: slice {index or 0} has NaN or infinity in '
                f"{int(wrong.any(axis=2).sum())} pixels. nan='nodata' of LoadNIfTI leaves them out",
                'NaN',
            )
        results['img'] = keep_nodata(
            results, image, wrong, self.fill, f'{path}, slice {index or 0}'
        )
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(axis={self.axis}, channels={self.channels}, nan={self.nan!r}, '
            f'fill={self.fill})'
        )


@register(TRANSFORMS)
class LoadNIfTIAnnotations(FileAnnotations):
    """Load the labels of a slice of a NIfTI volume.

    They must have the shape and the affine of the image. Slice and axis are those of the image,
    so this transform follows :class:`LoadNIfTI`.

    Args:
        axis: see :class:`LoadNIfTI`.
        reduce_zero_label, ignore_index: see :class:`FileAnnotations`.

    Raises:
        ModuleNotFoundError: if nibabel is not installed.
        ValueError: if ``axis`` has another value.
    """

    def __init__(
        self, axis: int = 2, reduce_zero_label: bool | None = None, ignore_index: int = 255
    ) -> None:
        import_optional('nibabel', 'medical', 'LoadNIfTIAnnotations')
        _check_axis(axis)
        super().__init__(reduce_zero_label, ignore_index)
        self.axis = axis

    def _read(self, results: dict) -> tuple[np.ndarray, None]:
        path = results['seg_map_path']
        with open_volume(path) as volume:
            shape, affine = _shape(path, volume)[:3], np.asarray(volume.affine)
            if _VOLUME in results:
                _compare(path, shape, affine, results)
            labels = _read_slice(path, volume, self.axis, results.get(_INDEX))
        if labels.shape[2] != 1:
            raise BadSampleError(f'{path} has {labels.shape[2]} channels: labels have one')
        return labels[..., 0], None


def _compare(path: str, shape: tuple[int, ...], affine: np.ndarray, results: dict) -> None:
    from nibabel.affines import voxel_sizes

    image, (own_shape, own_affine) = results['img_path'], results[_VOLUME]
    if shape != own_shape:
        raise BadSampleError(
            f'{path}: the labels have shape {shape}, their image {image} {own_shape}',
            'mask of another size',
        )
    ends = np.array(np.meshgrid(*[(0, n) for n in shape])).reshape(3, -1)
    corners = np.concatenate([ends, np.ones((1, ends.shape[1]))])
    apart = np.abs((affine - own_affine) @ corners).max()
    if apart > _TOLERANCE * voxel_sizes(own_affine).min():
        raise BadSampleError(
            f'{path}: the labels have another affine than their image {image}; corners are '
            f'{apart:.3g} mm apart',
            'mask of another place',
        )


def _check_axis(axis: int) -> None:
    if axis not in (0, 1, 2):
        raise ValueError(f'axis is 0, 1 or 2, got {axis!r}')


@register(DATASETS)
class NIfTISlices(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` for NIfTI volumes: a sample is a slice.

    Folders and split files are mmseg's, with a volume for an image. Headers are read to count the
    slices. Training reads single slices in random order: from an uncompressed ``.nii`` that is
    fast; a ``.nii.gz`` is decompressed up to the slice each time.

    Args:
        axis: of the file that slices are taken along, as in :class:`LoadNIfTI`.
        img_suffix, seg_map_suffix: of the files.
        **kwargs: of ``BaseSegDataset``.

    Raises:
        BadSampleError: if a header cannot be read.
        ModuleNotFoundError: if nibabel is not installed.
        ValueError: if ``axis`` has another value.
    """

    def __init__(
        self,
        axis: int = 2,
        img_suffix: str = '.nii.gz',
        seg_map_suffix: str = '.nii.gz',
        **kwargs: Any,
    ) -> None:
        _check_axis(axis)
        self.axis = axis
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """A dict per slice: that of the volume, with ``slice_index`` and ``slice_axis``."""
        return [
            {**info, 'seg_fields': [], _INDEX: index, _AXIS: self.axis}
            for info in super().load_data_list()
            for index in range(count_slices(info['img_path'], self.axis))
        ]
