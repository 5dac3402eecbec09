"""The figures of docs/results.md, drawn from the summaries of runs in docs/results/."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from summaries import METRICS, Pair, pairs_of, values_of

__all__ = ['FIGURES', 'draw', 'draw_grid', 'draw_growth']

#: summary -> patches along a side of a training image: 48 pixels, patches of 8 and of 4
GRIDS = {'ablation': 6, 'grid': 12}


def draw_grid(folder: Path) -> Figure:
    """mIoU against the patches along a side, of the models that both grids have.

    Args:
        folder: of ``ablation.json`` (coarse) and ``grid.json`` (fine).

    Returns:
        one panel for the linear decoder, one for in-context segmentation.

    Raises:
        FileNotFoundError: if a summary is missing.
    """
    models = {name: {row['name']: row for row in _read(folder, name)['rows']} for name in GRIDS}
    shared = [name for name in models['grid'] if name in models['ablation']]
    figure, axes = _two_panels()
    for axis, metric in zip(axes, ('miou', 'in_context'), strict=True):
        for index, name in enumerate(shared):
            samples = [values_of(rows[name], metric) for rows in models.values()]
            # A little apart: the seeds of two models would hide each other.
            places = [side * 1.02 ** (index - 1) for side in GRIDS.values()]
            _plot(axis, places, samples, f'C{index}', name)
        axis.set_ylabel(METRICS[metric])
        _ticks(axis, {side: f'{side}' for side in GRIDS.values()})
        axis.set_xlabel('patches along a side of a training image')
    axes[0].legend()
    return figure


def draw_growth(folder: Path) -> Figure:
    """LocAtViT's gain in mIoU against the size of the model and the number of images.

    Args:
        folder: of ``growth.json``.

    Returns:
        one panel for the parameters, with the most images; one for the images, with the smallest
        model.

    Raises:
        FileNotFoundError: if the summary is missing.
        ValueError: if a row is none of ``make demo-growth``, or has no partner.
    """
    pairs = pairs_of(_read(folder, 'growth'))
    most, least = max(pair.images for pair in pairs), min(pair.width for pair in pairs)
    wider = {pair.plain['params']: pair for pair in pairs if pair.images == most}
    more = {pair.images: pair for pair in pairs if pair.width == least}
    figure, (left, right) = _two_panels(sharey=True)
    _plot_gains(left, wider, {count: f'{count / 1e6:.2f}' for count in wider})
    left.set_xlabel(f'parameters of ViT (millions), {most:,} images')
    left.set_ylabel('LocAtViT minus ViT:\nlinear mIoU (percentage points)')
    _plot_gains(right, more, {count: f'{count:,}' for count in more})
    right.set_xlabel(f'images in pretraining, width {least}')
    return figure


#: summary, and the figure beside it -> what draws it
FIGURES: dict[str, Callable[[Path], Figure]] = {'grid': draw_grid, 'growth': draw_growth}


def draw(folder: Path) -> list[Path]:
    """Draw all figures whose summary is there.

    Args:
        folder: of the summaries.

    Returns:
        the written files, beside the summaries.
    """
    written = []
    for name, make in FIGURES.items():
        if (folder / f'{name}.json').exists():
            figure = make(folder)
            written.append(folder / f'{name}.png')
            figure.savefig(written[-1], dpi=150)
            plt.close(figure)
    return written


def _read(folder: Path, name: str) -> dict:
    return json.loads((folder / f'{name}.json').read_text())


def _two_panels(sharey: bool = False) -> tuple[Figure, Sequence[Axes]]:
    # At a width of 800 pixels, text of 10 points is 14 pixels high.
    return plt.subplots(1, 2, figsize=(8, 3.6), layout='constrained', sharey=sharey)


def _plot(
    axis: Axes, places: Sequence[float], samples: Sequence[np.ndarray], colour: str, label: str
) -> None:
    """Means as a line, and every seed as a point."""
    axis.plot(places, [sample.mean() for sample in samples], color=colour, label=label)
    for place, sample in zip(places, samples, strict=True):
        axis.plot([place] * len(sample), sample, 'o', color=colour, alpha=0.6, markersize=5)


def _plot_gains(axis: Axes, pairs: dict[int, Pair], labels: dict[int, str]) -> None:
    axis.axhline(0, color='0.6', linewidth=1)
    _plot(axis, [*pairs], [pair.gains('miou') for pair in pairs.values()], 'C1', 'mean of seeds')
    _ticks(axis, labels)


def _ticks(axis: Axes, labels: dict[int, str]) -> None:
    """A logarithmic axis with ticks at the measured values alone."""
    axis.set_xscale('log')
    axis.set_xticks([*labels], [*labels.values()])
    axis.minorticks_off()
    axis.margins(x=0.12)  # or labels of two panels touch
