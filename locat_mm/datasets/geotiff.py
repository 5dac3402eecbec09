"""GeoTIFF images and masks, read by rasterio."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from mmcv.transforms import BaseTransform

from ..helpers import check_choice, import_optional
from ..registry import TRANSFORMS, register
from .file_annotations import FileAnnotations, keep_nodata
from .file_damage import BadSampleError

__all__ = ['GeoReference', 'LoadGeoTIFF', 'LoadGeoTIFFAnnotations', 'open_raster']

#: Largest distance between the corners of a mask and of its image, in pixels. Files of the same
#: grid differ by rounding only; a shift by half a pixel must be found.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class GeoReference:
    """Where a raster is on the ground.

    Args:
        crs: rasterio's; None without one.
        transform: pixels (column, row) -> coordinates; the identity without one.
        size: (columns, rows).
    """

    crs: Any
    transform: Any
    size: tuple[int, int]

    def difference(self, other: 'GeoReference') -> str | None:
        """What differs, or None. A file without a CRS or transform fits every other one."""
        if self.crs and other.crs and self.crs != other.crs:
            return f'CRS {other.crs} instead of {self.crs}'
        if self.transform.is_identity or other.transform.is_identity:
            return None
        columns, rows = self.size
        corners = np.array([(0, columns, 0, columns), (0, 0, rows, rows), (1, 1, 1, 1)])
        own, given = (np.array(one).reshape(3, 3) for one in (~self.transform, other.transform))
        if np.abs((own @ given @ corners) - corners).max() > _TOLERANCE:
            shown = [tuple(round(v, 6) for v in one.transform[:6]) for one in (other, self)]
            return f'transform {shown[0]} instead of {shown[1]}'
        return None


@contextmanager
def open_raster(path: str) -> Iterator[Any]:
    """Open a file with rasterio, for reading.

    Raises:
        BadSampleError: if it cannot be opened, or not be read inside of the block.
        ModuleNotFoundError: if rasterio is not installed.
    """
    rasterio = import_optional('rasterio', 'satellite', 'reading GeoTIFF files')
    with warnings.catch_warnings():
        # A mask as PNG has no georeference, which is allowed.
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as raster:
                yield raster
        except rasterio.errors.RasterioIOError as error:
            cause = error.__cause__ or error
            raise BadSampleError(f'{path} cannot be read by rasterio: {cause}') from None


@register(TRANSFORMS)
class LoadGeoTIFF(BaseTransform):
    """Load bands of a GeoTIFF, or of another raster that rasterio opens.

    mmseg's ``LoadSingleRSImageFromFile`` needs GDAL's own Python package, which has no wheels, and
    knows neither bands nor nodata. Values are as stored: scale and offset in the file are not
    applied.

    Pixels without data are those of the file's nodata value or mask. A band that is marked as
    alpha is read as a band, since GDAL marks the fourth of four 8-bit bands so by default. A pixel
    without data in one of the bands gets ``ignore_index`` by :class:`LoadGeoTIFFAnnotations`; its
    value there is ``fill``.

    Adds ``img`` (float32 ``[H, W, bands]``), ``img_shape``, ``ori_shape``, ``georeference``, and
    ``nodata`` (bool ``[H, W]``) if the image has such pixels.

    Args:
        bands: numbers from 1, in the order of the channels; None: all.
        nodata: ``'ignore'`` or ``'error'`` for images with pixels without data.
        nan: NaN and infinity that are not declared as nodata: ``'error'``, or ``'nodata'`` to
            treat them so.
        fill: value of pixels without data: a number, or one per band; None: the mean of the band's
            other pixels in this image.

    Raises:
        ModuleNotFoundError: if rasterio is not installed.
        ValueError: if a band is below 1, there is none, or an argument has another value.
    """

    CHECKED_PATHS: ClassVar[tuple[str, ...]] = ('img_path',)

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        nodata: str = 'ignore',
        nan: str = 'error',
        fill: float | Sequence[float] | None = None,
    ) -> None:
        import_optional('rasterio', 'satellite', 'LoadGeoTIFF')
        check_choice('nodata', nodata, ('ignore', 'error'))
        check_choice('nan', nan, ('error', 'nodata'))
        if bands is not None and (not bands or any(b < 1 for b in bands)):
            raise ValueError(f'bands are numbers from 1, got {bands!r}')
        self.bands = None if bands is None else list(bands)
        self.nodata = nodata
        self.nan = nan
        self.fill = fill

    def transform(self, results: dict) -> dict:
        """
        Raises:
            BadSampleError: a ValueError with the file's name, if the file cannot be read, a band
                is missing, the values are complex, there are NaN or pixels without data that are
                not allowed, or the image has no other pixels.
        """
        path = results['img_path']
        with open_raster(path) as raster:
            bands = self.bands or list(raster.indexes)
            missing = [band for band in bands if band > raster.count]
            if missing:
                raise BadSampleError(
                    f'{path} has {raster.count} bands: band {missing[0]} of bands={bands} is '
                    'missing',
                    'band missing',
                )
            values = raster.read(bands)
            nodata = _without_data(raster, bands)
            results['georeference'] = _georeference(raster)
        if values.dtype.kind == 'c':
            raise BadSampleError(f'{path} has complex values ({values.dtype})')
        image = np.ascontiguousarray(values.transpose(1, 2, 0), dtype=np.float32)
        wrong = ~np.isfinite(image) & ~nodata
        if wrong.any() and self.nan == 'error':
            band = int(np.flatnonzero(wrong.any(axis=(0, 1)))[0])
            raise BadSampleError(
                f'{path}: band {bands[band]} has NaN or infinity in {int(wrong[..., band].sum())} '
                "pixels, which the file does not declare as nodata. nan='nodata' of LoadGeoTIFF "
                'leaves such pixels out',
                'NaN',
            )
        nodata |= wrong
        if nodata.any() and self.nodata == 'error':
            raise BadSampleError(
                f'{path} has no data in {int(nodata.any(axis=2).sum())} pixels, which '
                "nodata='error' forbids",
                'nodata',
            )
        results['img'] = keep_nodata(results, image, nodata, self.fill, path)
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(bands={self.bands}, nodata={self.nodata!r}, nan={self.nan!r}, '
            f'fill={self.fill})'
        )


@register(TRANSFORMS)
class LoadGeoTIFFAnnotations(FileAnnotations):
    """Load a mask that is a GeoTIFF with one band, or another file that rasterio opens, as PNG.

    The mask must have the size, the CRS and the transform of its image. A mask without a
    georeference must have its size. Pixels without data, in the mask or in the image, get
    ``ignore_index``.

    Args:
        reduce_zero_label, ignore_index: see :class:`FileAnnotations`.
        band: of the mask.

    Raises:
        ModuleNotFoundError: if rasterio is not installed.
    """

    def __init__(
        self, reduce_zero_label: bool | None = None, ignore_index: int = 255, band: int = 1
    ) -> None:
        import_optional('rasterio', 'satellite', 'LoadGeoTIFFAnnotations')
        super().__init__(reduce_zero_label, ignore_index)
        self.band = band

    def _read(self, results: dict) -> tuple[np.ndarray, np.ndarray]:
        path = results['seg_map_path']
        with open_raster(path) as raster:
            if self.band > raster.count:
                raise BadSampleError(
                    f'{path} has {raster.count} bands: band={self.band} is missing', 'band missing'
                )
            labels = raster.read(self.band)
            nodata = _without_data(raster, [self.band])[..., 0]
            own = _georeference(raster)
        image = results.get('georeference')
        difference = None
        if image is not None and image.size == own.size:  # another size is an error of its own
            difference = image.difference(own)
        if difference is not None:
            raise BadSampleError(
                f'{path}: the mask has {difference}, which its image {results["img_path"]} has',
                'mask of another place',
            )
        return labels, nodata


def _georeference(raster: Any) -> GeoReference:
    return GeoReference(raster.crs, raster.transform, (raster.width, raster.height))


def _without_data(raster: Any, bands: Sequence[int]) -> np.ndarray:
    """Where bands have no data, bool ``[H, W, bands]``."""
    from rasterio.enums import MaskFlags

    nodata = np.zeros((raster.height, raster.width, len(bands)), bool)
    for index, band in enumerate(bands):
        flags = raster.mask_flag_enums[band - 1]
        if MaskFlags.alpha not in flags and MaskFlags.all_valid not in flags:
            nodata[..., index] = raster.read_masks(band) == 0
    return nodata
