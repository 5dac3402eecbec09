"""Draws the Gaussians of GAug on an image."""

import math
from pathlib import Path

from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .inspection import Inspection, Inspector
from .panels import fade, frame, gaussian_ellipse, label_bar, show_picture
from .recording import LayerRecord

__all__ = ['draw_gaussians']

#: Number of patches along the longer side whose Gaussian is drawn.
_NUM_PATCHES = 6
_COLOURS = 'viridis_r'  # weak Gaussians are pale


def draw_gaussians(
    config: str, checkpoint: str, image: str | Path, out: str | Path, overrides: dict | None = None
) -> Path:
    """Draw the Gaussians of some patches, for at most six layers from the first to the last.

    Of a model in which only some layers have GAug, the last six of these are drawn.

    Args:
        config, checkpoint, overrides: see :class:`~locat_mm.analysis.inspection.Inspector`.
        image: path of the image.
        out: the picture to write.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError, ValueError: as ``Inspector``; ValueError also if the model has no GAug.
    """
    inspection = Inspector(config, checkpoint, overrides)(image)
    chosen = inspection.choose_layers()
    if any(inspection.layers[number].alpha is None for number in chosen):
        # Only some of the layers have GAug, or none.
        having = [i for i, layer in enumerate(inspection.layers) if layer.alpha is not None]
        chosen = having[-len(chosen) :]
    shown = {number: inspection.layers[number] for number in chosen}
    strengths = [layer.alpha for layer in shown.values() if layer.alpha is not None]
    if not strengths:
        raise ValueError(f'{config}: the model has no GAug whose Gaussians could be drawn')
    height, width = inspection.picture.shape[:2]
    figure = Figure(
        figsize=(2.5 * len(shown) + 0.9, 2.5 * height / width + 0.9), layout='compressed'
    )
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    norm = Normalize(0, max(float(alpha.nanquantile(0.98)) for alpha in strengths))
    for axis, (number, layer), alpha in zip(axes, shown.items(), strengths, strict=True):
        show_picture(axis, fade(inspection.picture))
        for patch in _lattice(inspection, layer):
            colour = colormaps[_COLOURS](norm(float(alpha[patch])))
            axis.add_patch(
                gaussian_ellipse(inspection, layer, patch, 0.5, edgecolor=colour, linewidth=1.6)
            )
        axis.set_title(f'layer {number}\n{_averages(layer)}', fontsize=9)
        frame(axis, inspection)
    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=list(axes), aspect=18, pad=0.015)
    label_bar(bar, 'strength α (logits)')
    figure.supxlabel(
        'ellipses: the Gaussians of some patches, at half a standard deviation; σ in patches',
        fontsize=9,
    )
    figure.savefig(out, dpi=150)
    return Path(out)


def _averages(layer: LayerRecord) -> str:
    assert layer.sigma is not None and layer.alpha is not None
    rows, columns = layer.sigma.nanmean(dim=(0, 1)).tolist()
    text = f'mean σ {rows:.2g} × {columns:.2g}, mean α {float(layer.alpha.nanmean()):.2g}'
    if layer.correlation is not None:
        text = f'{text}, mean |ρ| {float(layer.correlation.abs().nanmean()):.2g}'
    return text


def _lattice(inspection: Inspection, layer: LayerRecord) -> list[tuple[int, int]]:
    """Patches (row, column) of the picture at equal distances."""
    height, width = inspection.picture.shape[:2]
    rows, columns = inspection.patch_pixels(layer.grid_size)
    count = math.ceil(height / rows), math.ceil(width / columns)
    step = math.ceil(max(count) / _NUM_PATCHES)
    first = (step - 1) // 2
    return [
        (row, column)
        for row in range(first, count[0], step)
        for column in range(first, count[1], step)
    ]
