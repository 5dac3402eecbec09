"""Masks in the formats of rasters and volumes, in the place of their images."""

import gzip
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..checkpoint import write_beside
from ..datasets import BadSampleError
from ..datasets.geotiff import open_raster
from ..helpers import import_optional

__all__ = ['is_georeferenced', 'view', 'without_data', 'write_geotiff', 'write_nifti']

#: TIFF tags of a pixel scale, of a transform and of tie points.
_GEO_TAGS = (33550, 34264, 33922)
#: Shares of the values below black and above white in a picture for viewing.
_ENDS = 0.02, 0.98


def is_georeferenced(path: Path) -> bool:
    """Whether a file is a GeoTIFF that Pillow can open. rasterio is not needed to know."""
    if path.suffix.lower() not in ('.tif', '.tiff'):
        return False
    with Image.open(path) as image:
        tags = getattr(image, 'tag_v2', {})
        return any(tag in tags for tag in _GEO_TAGS)


def without_data(path: str | Path) -> np.ndarray | None:
    """Pixels of a raster without data in all bands, bool ``[H, W]``; None if there are none."""
    from rasterio.enums import MaskFlags

    with open_raster(str(path)) as raster:
        flags = raster.mask_flag_enums
        if any(MaskFlags.alpha in f or MaskFlags.all_valid in f for f in flags):
            return None
        nodata = raster.dataset_mask() == 0
    return nodata if nodata.any() else None


def write_geotiff(
    path: Path, mask: np.ndarray, source: str | Path, palette: Sequence[Sequence[int]], nodata: int
) -> None:
    """Write a mask as a GeoTIFF with the CRS and the transform of its image.

    Args:
        path: of the mask.
        mask: uint8 or uint16 ``[H, W]``.
        source: the image. Ground control points are taken over too, if it has no transform.
        palette: RGB colour of each class; kept in the file if the mask is uint8.
        nodata: value that is declared as nodata.

    Raises:
        BadSampleError: if the image has another size than the mask.
        ModuleNotFoundError: if rasterio is not installed.
    """
    rasterio = import_optional('rasterio', 'satellite', 'writing a GeoTIFF')
    with open_raster(str(source)) as raster:
        if (raster.height, raster.width) != mask.shape:
            raise BadSampleError(
                f'{source} has {raster.height}×{raster.width} pixels, and its mask {mask.shape}'
            )
        where: dict[str, Any] = dict(crs=raster.crs, transform=raster.transform)
        points, points_crs = raster.gcps
        if points and raster.transform.is_identity:
            where = dict(gcps=points, crs=points_crs)
    height, width = mask.shape
    with write_beside(path) as beside, warnings.catch_warnings():
        # An image without a place, such as a PNG, has a mask without one.
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            beside,
            'w',
            driver='GTiff',
            count=1,
            height=height,
            width=width,
            dtype=mask.dtype,
            nodata=nodata,
            compress='deflate',
            **where,
        ) as target:
            target.write(mask, 1)
            if mask.dtype == np.uint8:
                target.write_colormap(1, {i: (*colour, 255) for i, colour in enumerate(palette)})


def write_nifti(path: Path, slices: Sequence[np.ndarray], source: str | Path, axis: int) -> None:
    """Write masks of slices as a NIfTI volume with the affine and the header of their image.

    Args:
        path: of the volume, ``.nii`` or ``.nii.gz``.
        slices: unsigned ``[H, W]`` each, all of a volume.
        source: the image.
        axis: that the slices were taken along.

    Raises:
        ModuleNotFoundError: if nibabel is not installed.
    """
    nibabel = import_optional('nibabel', 'medical', 'writing NIfTI')
    labels = np.stack([part.T for part in slices], axis=axis)
    image = nibabel.load(source)
    header = image.header.copy()
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    header['cal_min'] = header['cal_max'] = 0  # the range of the image is not that of the labels
    content = type(image)(labels, image.affine, header).to_bytes()
    with write_beside(path) as beside:
        beside.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def view(image: np.ndarray, nodata: np.ndarray | None = None) -> np.ndarray:
    """A picture for viewing: the first three channels as red, green and blue, or the first as grey.

    Each channel is stretched from its 2nd to its 98th percentile.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``.
        nodata: pixels to leave out of the percentiles, bool ``[H, W]``.

    Returns:
        BGR, uint8 ``[H, W, 3]``.
    """
    image = image[..., None] if image.ndim == 2 else image
    channels = [2, 1, 0] if image.shape[2] >= 3 else [0, 0, 0]
    shown = image[..., channels].astype(np.float32)
    known = shown[~nodata] if nodata is not None else shown.reshape(-1, 3)
    low, high = np.quantile(known, _ENDS, axis=0)
    scaled = (shown - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return (255 * scaled.clip(0, 1)).astype(np.uint8)
