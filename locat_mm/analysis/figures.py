"""Figures of an :class:`~locat_mm.analysis.inspection.Inspection`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .inspection import Inspection
from .panels import (
    colour_bar,
    fade,
    frame,
    gaussian_ellipse,
    label_bar,
    mark_patch,
    show_map,
    show_picture,
)

__all__ = ['draw_inspection', 'make_figure']

_GAUSSIAN = '#d62728'
_DPI = 150


def draw_inspection(
    inspection: Inspection,
    out: str | Path,
    point: tuple[float, float] | None = None,
    layers: Sequence[int] | None = None,
) -> Path:
    """Write the figure of :func:`make_figure` to the file ``out``, and return ``out``.

    The other arguments and the errors are those of :func:`make_figure`.
    """
    make_figure(inspection, point, layers).savefig(out, dpi=_DPI)
    return Path(out)


def make_figure(
    inspection: Inspection,
    point: tuple[float, float] | None = None,
    layers: Sequence[int] | None = None,
) -> Figure:
    """All that was recorded of an image. Parts that a model lacks are omitted.

    Args:
        inspection: of the image.
        point: (x, y) in pixels, in the patch whose attention is drawn; by default the centre.
        layers: numbers of the layers to draw; by default six from the first to the last.

    Raises:
        ValueError: if the point is outside of the picture or there is no such layer.
    """
    height, width = inspection.picture.shape[:2]
    point = (width / 2, height / 2) if point is None else point
    chosen = inspection.choose_layers(layers)
    shown = [inspection.layers[i] for i in chosen]
    where = [inspection.patch_at(layer, *point) for layer in shown]
    has_gaug = any(layer.sigma is not None for layer in shown)
    has_class = any(layer.similarity is not None for layer in inspection.layers)

    rows = ['attention', *(['gaussian', 'sigma', 'alpha'] if has_gaug else [])]
    rows += ['angle'] if any(layer.covariance is not None for layer in shown) else []
    panels = ['picture', *(['curve', 'similarity'] if has_class else [])]
    panels += ['refinement'] if inspection.refinement is not None else []
    # Sizes in inches. The limits keep flat and tall pictures from making the figure a strip.
    ratio = min(max(height / width, 0.5), 1.8)
    total = max(1.75 * len(shown) + 1.5, 2.6 * len(panels) + 0.3, 6.0)
    panel = min((total - 1.8) / len(shown), 2.4, 2.4 / ratio)
    top, bottom = 1.9 * ratio + 0.7, len(rows) * (panel * ratio + 0.12) + 0.7
    figure = Figure(figsize=(total, top + bottom + 0.4), layout=ConstrainedLayoutEngine(w_pad=0.07))
    row, column = where[0]
    figure.suptitle(
        f'{inspection.name}, {width}×{height} pixels, patches of '
        f'{inspection.patch_size[1]}×{inspection.patch_size[0]}. Looked at: row {row}, column '
        f'{column}',
        fontsize=10,
    )
    above, below = figure.subfigures(2, 1, height_ratios=(top, bottom))
    _draw_summary(above, inspection, panels, point)
    used = panel * len(shown) + 1.8
    if used < total:
        below = below.subfigures(1, 2, width_ratios=(used, total - used))[0]
    ratios = [*[1.0] * len(shown), 0.07]  # the last column holds the colour bars
    grid = below.subplots(len(rows), len(shown) + 1, squeeze=False, width_ratios=ratios)
    for axes, name in zip(grid, rows, strict=True):
        _ROWS[name](axes, inspection, shown, where)
        for axis, number in zip(axes, chosen, strict=False):
            frame(axis, inspection)
            if name == 'attention':
                axis.set_title(f'layer {number}\n{axis.get_title()}'.strip(), fontsize=8)
        axes[0].set_ylabel(_LABELS[name], fontsize=8)
    return figure


def _draw_summary(
    figure: Any, inspection: Inspection, panels: list[str], point: tuple[float, float]
) -> None:
    axes = dict(zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True))
    axis = axes['picture']
    show_picture(axis, inspection.picture)
    first = inspection.layers[0]
    mark_patch(axis, inspection, first, inspection.patch_at(first, *point))
    axis.set_title('what the model sees, and the patch', fontsize=8)
    frame(axis, inspection)
    axis.set(xticks=[0, inspection.picture.shape[1]], yticks=[0, inspection.picture.shape[0]])
    axis.set_xlabel('pixels', fontsize=8, labelpad=-4)
    axis.tick_params(labelsize=7)
    if 'curve' in axes:
        _draw_curve(axes['curve'], inspection)
        number, last = _similarities(inspection)[-1]
        axis = axes['similarity']
        image = show_map(axis, inspection, last, 'coolwarm', Normalize(-1, 1))
        axis.set_title(f'similarity to [CLS], layer {number}', fontsize=8)
        frame(axis, inspection)
        label_bar(figure.colorbar(image, ax=axis, shrink=0.8), 'cosine')
    if 'refinement' in axes:
        axis, weights = axes['refinement'], inspection.refinement
        assert weights is not None
        image = show_map(axis, inspection, weights * weights.numel(), 'inferno', Normalize(0))
        reader = {'cls_token': '[CLS]', 'prefix': 'the class tokens'}.get(
            str(inspection.pool), 'the mean patch'
        )
        axis.set_title(f'PRR: weights of {reader}', fontsize=8)
        axis.set_xlabel(f'{100 * float(weights.sum()):.0f} % of them on patches', fontsize=8)
        frame(axis, inspection)
        label_bar(figure.colorbar(image, ax=axis, shrink=0.8), '× even weight')


def _similarities(inspection: Inspection) -> list[tuple[int, Tensor]]:
    """Layer numbers and similarities to [CLS] of the layers that have them."""
    maps = [(number, layer.similarity) for number, layer in enumerate(inspection.layers)]
    return [(number, values) for number, values in maps if values is not None]


def _draw_curve(axis: Any, inspection: Inspection) -> None:
    numbers, maps = zip(*_similarities(inspection), strict=True)
    values = [similarity.flatten() for similarity in maps]
    low, high = ([float(v.quantile(q)) for v in values] for q in (0.1, 0.9))
    axis.fill_between(numbers, low, high, alpha=0.25, linewidth=0, label='10 to 90 % of patches')
    axis.plot(numbers, [float(v.mean()) for v in values], marker='o', ms=3.5, label='mean')
    axis.set_ylim(-1.05, 1.05)
    axis.axhline(0, color='0.7', linewidth=0.8, zorder=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel('layer', fontsize=8)
    axis.set_ylabel('cosine', fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_title('similarity of patches to [CLS]', fontsize=8)
    axis.legend(fontsize=7, loc='lower left', frameon=False)


def _draw_attention(axes: Any, inspection: Inspection, shown: list, where: list) -> None:
    # As multiples of uniform attention over all tokens, so that layers can be compared.
    maps = [
        layer.attention_of(*patch) * layer.attention.shape[-1]
        for layer, patch in zip(shown, where, strict=True)
    ]
    norm = LogNorm(0.1, max(10.0, *(float(values.nan_to_num(0).max()) for values in maps)))
    for axis, layer, patch, values in zip(axes, shown, where, maps, strict=False):
        show_picture(axis, fade(inspection.picture))
        image = show_map(axis, inspection, values.clamp(min=0.1), 'inferno', norm, alpha=0.75)
        mark_patch(axis, inspection, layer, patch)
        elsewhere = 1 - float(layer.attention_of(*patch).nansum())
        if elsewhere > 5e-3:
            kind = 'padding' if (layer.patches[0] >= 0).all() else 'other tokens'
            axis.set_title(f'{100 * elsewhere:.0f} % on {kind}')
    colour_bar(axes[-1], image, '× even attention')


def _draw_gaussian(axes: Any, inspection: Inspection, shown: list, where: list) -> None:
    for axis, layer, patch in zip(axes, shown, where, strict=False):
        show_picture(axis, fade(inspection.picture))
        mark_patch(axis, inspection, layer, patch)
        if layer.sigma is None or layer.alpha is None:
            axis.set_title('no GAug', fontsize=8)
            continue
        for sigmas, style in ((1, '-'), (2, '--')):
            look = dict(edgecolor=_GAUSSIAN, linestyle=style)
            axis.add_patch(gaussian_ellipse(inspection, layer, patch, sigmas, **look))
        sigma, alpha = layer.sigma[patch].tolist(), float(layer.alpha[patch])
        title = f'σ {sigma[0]:.2g} × {sigma[1]:.2g}, α {alpha:.2g}'
        if layer.correlation is not None:
            title = f'{title}\nρ {float(layer.correlation[patch]):.2g}'
        axis.set_title(title, fontsize=8)
    axes[-1].set_axis_off()
    axes[-1].legend(
        [Line2D([], [], color=_GAUSSIAN, linestyle=style) for style in ('-', '--')],
        ['1 σ', '2 σ'],
        loc='center left',
        bbox_to_anchor=(-0.5, 0.5),
        frameon=False,
        fontsize=7,
        title='rows × columns,\nin patches',
        title_fontsize=7,
    )


def _draw_sigma(axes: Any, inspection: Inspection, shown: list, where: list) -> None:
    maps = [None if s.variance is None else s.variance.prod(-1) ** 0.25 for s in shown]
    _draw_row(axes, inspection, maps, 'viridis', 'σ (patches)')


def _draw_alpha(axes: Any, inspection: Inspection, shown: list, where: list) -> None:
    _draw_row(axes, inspection, [s.alpha for s in shown], 'cividis', 'α (logits)')


def _draw_angle(axes: Any, inspection: Inspection, shown: list, where: list) -> None:
    for axis, layer in zip(axes, shown, strict=False):
        if layer.angle is not None:
            image = show_map(axis, inspection, layer.angle, 'twilight', Normalize(-90, 90))
    colour_bar(axes[-1], image, 'angle (degrees)')


def _draw_row(axes: Any, inspection: Inspection, maps: list, colours: str, label: str) -> None:
    norm = Normalize(0, max(float(m.nan_to_num(0).max()) for m in maps if m is not None))
    for axis, values in zip(axes, maps, strict=False):
        if values is not None:
            image = show_map(axis, inspection, values, colours, norm)
    colour_bar(axes[-1], image, label)


_ROWS = dict(
    attention=_draw_attention,
    gaussian=_draw_gaussian,
    sigma=_draw_sigma,
    alpha=_draw_alpha,
    angle=_draw_angle,
)
_LABELS = dict(
    attention='attention of the patch\n(mean over heads)',
    gaussian='its Gaussian',
    sigma='σ of all patches\n(√ rows · columns)',
    alpha='α of all patches',
    angle='angle of all Gaussians\n(0: along a row)',
)
