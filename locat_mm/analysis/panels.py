"""Parts of the figures, each for one matplotlib axis."""

import math
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patches import Ellipse, Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter
from torch import Tensor

from .inspection import Inspection
from .recording import LayerRecord

__all__ = [
    'colour_bar',
    'fade',
    'frame',
    'gaussian_ellipse',
    'label_bar',
    'mark_patch',
    'show_map',
    'show_picture',
]

_POINT = '#00e5ff'


def gaussian_ellipse(
    inspection: Inspection, layer: LayerRecord, patch: tuple[int, int], sigmas: float, **style
) -> Ellipse:
    """The Gaussian of a patch, drawn at ``sigmas`` standard deviations.

    It is G of GAug with the paper's Σ (arXiv 2603.04892), averaged over the heads, without the
    ``eps`` that the code adds to the variance. Those of rotated kernels are turned.

    Args:
        inspection: gives the pixels of a patch.
        layer: with GAug.
        patch: (row, column).
        sigmas: radius of the ellipse in standard deviations.
        style: of matplotlib's Ellipse.
    """
    assert layer.sigma is not None
    rows, columns = inspection.patch_pixels(layer.grid_size)
    sigma_row, sigma_column = layer.sigma[patch].tolist()
    centre = (patch[1] + 0.5) * columns, (patch[0] + 0.5) * rows
    size = 2 * sigmas * sigma_column * columns, 2 * sigmas * sigma_row * rows
    if layer.covariance is None:
        return Ellipse(centre, *size, fill=False, **style)
    # Of Σ in pixels, because patches need not be square.
    across = 4 * sigmas**2 * float(layer.covariance[patch]) * columns * rows
    covariance = np.array([[size[0] ** 2, across], [across, size[1] ** 2]])
    values, vectors = np.linalg.eigh(covariance)
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    width, height = np.sqrt(values[::-1])
    return Ellipse(centre, width, height, angle=angle, fill=False, **style)


def show_map(
    axis: Any, inspection: Inspection, values: Tensor, colours: str, norm: Any, alpha: float = 1.0
) -> Any:
    """Draw one value per patch at the patch's place in the picture."""
    rows, columns = inspection.patch_pixels((values.shape[0], values.shape[1]))
    extent = (0, values.shape[1] * columns, values.shape[0] * rows, 0)
    return axis.imshow(
        values.numpy(),
        cmap=colours,
        norm=norm,
        alpha=alpha,
        extent=extent,
        interpolation='nearest',
    )


def show_picture(axis: Any, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, extent=(0, width, height, 0), interpolation='nearest')


def frame(axis: Any, inspection: Inspection) -> None:
    """Limit the axis to the picture, without its padding."""
    height, width = inspection.picture.shape[:2]
    axis.set(xlim=(0, width), ylim=(height, 0), aspect='equal', xticks=[], yticks=[])


def mark_patch(axis: Any, inspection: Inspection, layer: LayerRecord, patch: tuple) -> None:
    rows, columns = inspection.patch_pixels(layer.grid_size)
    corner = (patch[1] * columns, patch[0] * rows)
    axis.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=_POINT, linewidth=1.2))


def fade(picture: np.ndarray) -> np.ndarray:
    """A light grey picture, as a background."""
    grey = picture.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return (255 - (255 - grey) * 0.5).astype(np.uint8)


def colour_bar(axis: Any, image: Any, label: str) -> None:
    """Fill an axis with the colour bar of an image."""
    bar = axis.figure.colorbar(image, cax=axis)
    if isinstance(image.norm, LogNorm):
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    label_bar(bar, label)


def label_bar(bar: Any, label: str) -> None:
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
