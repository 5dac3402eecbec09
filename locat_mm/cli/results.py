"""Masks and overlays of pictures, rasters and volumes, written beside each other."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..analysis.overlay import draw_legend, draw_overlay, with_legend
from ..checkpoint import write_beside
from .pictures import Picture
from .raster_masks import is_georeferenced, view, without_data, write_geotiff, write_nifti

__all__ = ['ResultWriter']

_NO_DATA = 'no data', (255, 255, 255)


class ResultWriter:
    """Writes masks and overlays below a folder, each file whole or not at all.

    Args:
        out: the folder. ``masks/NAME.png`` are palette images whose values are classes (16-bit
            grey for more than 256 classes), ``overlays/NAME.jpg`` are for viewing, and
            ``legend.png`` shows all classes. The mask of a GeoTIFF is also written as
            ``masks/NAME.tif``, with its georeference; that of a volume is ``masks/NAME.nii.gz``
            alone. Pixels without data are 255 (65535 with 16 bits).
        names: of the classes.
        palette: RGB colour of each class.
        opacity: of the overlays.
    """

    def __init__(
        self,
        out: str | Path,
        names: Sequence[str],
        palette: Sequence[Sequence[int]],
        opacity: float,
    ) -> None:
        self.out, self.names, self.palette, self.opacity = Path(out), names, palette, opacity
        self._end = 255 if len(names) <= 255 else 65535
        _save(Image.fromarray(draw_legend(names, palette)), self.out / 'legend.png', 'PNG')

    def as_values(self, mask: np.ndarray, nodata: np.ndarray | None = None) -> np.ndarray:
        """What a file holds: uint8, or uint16 for more than 255 classes, and no data as its end.

        Args:
            mask: classes ``[H, W]``.
            nodata: pixels without data, bool ``[H, W]``.
        """
        values = mask.astype(np.uint8 if self._end == 255 else np.uint16)
        if nodata is not None:
            values[nodata] = self._end
        return values

    def write(self, picture: Picture, image: np.ndarray, mask: np.ndarray) -> None:
        """Write the mask of a picture, and the GeoTIFF of a georeferenced one.

        Args:
            picture: gives the name.
            image: BGR, uint8 ``[H, W, 3]``.
            mask: classes ``[H, W]``.
        """
        nodata = None
        if is_georeferenced(picture.path):
            if find_spec('rasterio'):
                nodata = without_data(picture.path)
                self._write_geotiff(picture, self.as_values(mask, nodata))
            else:
                tqdm.write(
                    f'{picture.path} is georeferenced, and its mask is not: pip install rasterio',
                    file=sys.stderr,
                )
        self._write_png(picture, mask, nodata)
        self._write_overlay(picture, image, mask, nodata)

    def write_raster(
        self, picture: Picture, image: np.ndarray, mask: np.ndarray, nodata: np.ndarray | None
    ) -> None:
        """Write the mask of a raster that a config has loaded.

        Args:
            picture: gives the name.
            image: ``[H, W]`` or ``[H, W, C]``, any range.
            mask: classes ``[H, W]``.
            nodata: pixels without data, bool ``[H, W]``.
        """
        self._write_geotiff(picture, self.as_values(mask, nodata))
        self._write_png(picture, mask, nodata)
        self._write_overlay(picture, view(image, nodata), mask, nodata)

    def write_volume(
        self,
        picture: Picture,
        masks: Sequence[np.ndarray | None],
        shown: tuple[int, np.ndarray],
        axis: int,
    ) -> None:
        """Write the masks of the slices of a volume, and an overlay of one slice.

        Args:
            picture: gives the name.
            masks: of :meth:`as_values`, one per slice; None for slices without data.
            shown: number of a slice and its image.
            axis: that the slices were taken along.
        """
        index, image = shown
        known = masks[index]
        assert known is not None
        whole = [np.full_like(known, self._end) if mask is None else mask for mask in masks]
        write_nifti(self.out / 'masks' / f'{picture.name}.nii.gz', whole, picture.path, axis)
        nodata = known == self._end
        empty = nodata if nodata.any() else None
        self._write_overlay(picture, view(image, empty), np.where(nodata, 0, known), empty)

    def _write_geotiff(self, picture: Picture, values: np.ndarray) -> None:
        path = self.out / 'masks' / f'{picture.name}.tif'
        write_geotiff(path, values, picture.path, self.palette, self._end)

    def _write_png(self, picture: Picture, mask: np.ndarray, nodata: np.ndarray | None) -> None:
        path = self.out / 'masks' / f'{picture.name}.png'
        if len(self.names) <= 255 or (len(self.names) == 256 and nodata is None):
            values = mask.astype(np.uint8)
            if nodata is not None:
                values[nodata] = 255
            drawn = Image.fromarray(values)
            palette = np.asarray(self.palette, np.uint8)
            if nodata is not None:  # Pillow stores as many bits as the colours need
                palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)), constant_values=255)
            drawn.putpalette(palette.tobytes())
        else:
            drawn = Image.fromarray(self.as_values(mask, nodata))
        _save(drawn, path, 'PNG')

    def _write_overlay(
        self, picture: Picture, image: np.ndarray, mask: np.ndarray, nodata: np.ndarray | None
    ) -> None:
        names, palette = list(self.names), [list(colour) for colour in self.palette]
        if nodata is not None:
            mask = np.where(nodata, len(names), mask)
            names.append(_NO_DATA[0])
            palette.append(list(_NO_DATA[1]))
        rgb = np.ascontiguousarray(image[..., ::-1])
        overlay = draw_overlay(rgb, mask, palette, self.opacity)
        joined = Image.fromarray(with_legend(overlay, mask, names, palette))
        _save(joined, self.out / 'overlays' / f'{picture.name}.jpg', 'JPEG', quality=92)


def _save(image: Image.Image, path: Path, kind: str, **options) -> None:
    with write_beside(path) as beside:
        image.save(beside, kind, **options)
