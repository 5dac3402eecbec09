"""Draws numbers over two settings as heat maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..checkpoint import write_beside

__all__ = ['HeatMap', 'draw_heat_maps']


class HeatMap:
    """One panel.

    Args:
        title: above it.
        rows, columns: the values along the axes.
        values: ``[rows, columns]``; NaN where there is no number.
    """

    def __init__(
        self, title: str, rows: Sequence[float], columns: Sequence[float], values: np.ndarray
    ) -> None:
        self.title, self.rows, self.columns, self.values = title, rows, columns, values


def draw_heat_maps(
    panels: Sequence[Sequence[HeatMap]],
    out: str | Path,
    labels: tuple[str, str],
    units: Sequence[str],
) -> Path:
    """Draw a grid of heat maps; the panels of a row share their colours.

    Args:
        panels: rows of panels.
        out: the PNG file to write.
        labels: of the vertical and of the horizontal axis of every panel.
        units: name of the numbers of each row of panels, at its colour bar.

    Returns:
        ``out``.
    """
    most = max(len(row) for row in panels)
    height = max(len(p.rows) for row in panels for p in row)
    width = max(len(p.columns) for row in panels for p in row)
    figure = Figure(
        figsize=((0.75 * width + 0.9) * most + 1.2, (0.45 * height + 1.1) * len(panels)),
        layout='compressed',
    )
    axes = figure.subplots(len(panels), most, squeeze=False)
    for row, of_row, unit in zip(panels, axes, units, strict=True):
        numbers = np.concatenate([panel.values.ravel() for panel in row])
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        for panel, axis in zip(row, of_row, strict=False):
            image = axis.imshow(panel.values, vmin=low, vmax=high, cmap='viridis', aspect='auto')
            for (y, x), value in np.ndenumerate(panel.values):
                if not np.isnan(value):
                    dark = value < (low + high) / 2
                    colour = 'white' if dark else 'black'
                    axis.text(x, y, f'{value:.1f}', ha='center', va='center', color=colour)
            axis.set_title(panel.title, fontsize=9)
            axis.set_xticks(range(len(panel.columns)), [f'{x:g}' for x in panel.columns])
            axis.set_yticks(range(len(panel.rows)), [f'{y:g}' for y in panel.rows])
            axis.set_ylabel(labels[0])
            axis.set_xlabel(labels[1])
        for axis in of_row[len(row) :]:
            axis.remove()
        figure.colorbar(image, ax=list(of_row[: len(row)]), label=unit)
    with write_beside(out) as file:
        figure.savefig(file, format='png', dpi=120)
    return Path(out)
