"""Small GeoTIFF and NIfTI files."""

from pathlib import Path

import nibabel
import numpy as np
import rasterio
from rasterio.transform import from_origin

TRANSFORM = from_origin(400000, 5200000, 10, 10)
CRS = 'EPSG:32632'


def write_raster(path: Path, bands: np.ndarray, place: bool = True, **options) -> Path:
    """Bands ``[C, H, W]`` or ``[H, W]`` as a GeoTIFF, or by another ``driver``."""
    bands = bands[None] if bands.ndim == 2 else bands
    count, height, width = bands.shape
    where = dict(crs=CRS, transform=TRANSFORM) if place else {}
    options = {'driver': 'GTiff', **where, **options}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, 'w', count=count, height=height, width=width, dtype=bands.dtype, **options
    ) as file:
        file.write(bands)
    return path


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([0.7, 0.8, 5.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def sample(image: Path, mask: Path | None = None, **more) -> dict:
    """What mmseg's data sets give to a pipeline."""
    info = dict(img_path=str(image), seg_fields=[], reduce_zero_label=False, label_map=None)
    return {**info, **({} if mask is None else dict(seg_map_path=str(mask))), **more}
