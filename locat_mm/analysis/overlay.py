"""Pictures of segmentation maps: class colours, overlays and legends."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ['draw_legend', 'draw_overlay', 'make_palette', 'with_legend']

_BACKGROUND = ('background', 'bg', 'other', 'unlabeled', 'unlabelled', 'void')
_DARK = (40, 40, 40)
#: The first colours of a palette: easy to tell apart, also in print.
_FIRST = (
    *((230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48)),
    *((145, 30, 180), (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212)),
    *((0, 128, 128), (170, 110, 40), (128, 0, 0), (0, 0, 128), (128, 128, 0), (220, 190, 255)),
)
#: Overlays are for viewing: their longer side is brought into this range of pixels.
_SIDES = 480, 2048


def make_palette(names: Sequence[str]) -> list[list[int]]:
    """One RGB colour per class, always the same for the same names.

    Args:
        names: of the classes; a background as the first class is dark grey.
    """
    has_background = bool(names) and names[0].lower() in _BACKGROUND
    colours = [list(_DARK)] if has_background else []
    for index in range(len(names) - len(colours)):
        if index < len(_FIRST):
            colours.append(list(_FIRST[index]))
            continue
        # Steps of the golden ratio keep the hues of neighbours apart.
        hue, cycle = index * 0.618034 % 1.0, index % 6
        value = colorsys.hsv_to_rgb(hue, (0.9, 0.55, 0.75)[cycle % 3], (0.95, 0.65)[cycle // 3])
        colours.append([round(255 * part) for part in value])
    return colours


def draw_overlay(
    image: np.ndarray, mask: np.ndarray, palette: Sequence[Sequence[int]], opacity: float = 0.5
) -> np.ndarray:
    """Lay the colours of a mask over an image, with a thin line between classes.

    Args:
        image: RGB, uint8 ``[H, W, 3]``.
        mask: classes ``[H, W]``.
        palette: RGB colour of each class.
        opacity: of the colours, from 0 (image alone) to 1 (colours alone).

    Returns:
        RGB, uint8; small images are enlarged and large ones reduced, for viewing.
    """
    height, width = mask.shape
    longest = max(height, width)
    scale = max(1, _SIDES[0] // longest) if longest < _SIDES[1] else _SIDES[1] / longest
    size = max(1, round(width * scale)), max(1, round(height * scale))
    reduced = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, size, interpolation=reduced)
    mask = cv2.resize(mask.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    colours = np.asarray(palette, np.uint8)[mask]  # [H, W, 3]
    blended = cv2.addWeighted(image, 1 - opacity, colours, opacity, 0)
    if 0 < opacity < 1:
        edges = np.zeros(mask.shape, bool)
        edges[:, 1:] |= mask[:, 1:] != mask[:, :-1]
        edges[1:] |= mask[1:] != mask[:-1]
        blended[edges] = 255
    return blended


def with_legend(
    overlay: np.ndarray,
    mask: np.ndarray,
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> np.ndarray:
    """An overlay with the classes that the mask has beside it, the largest first.

    Args:
        overlay: RGB, uint8 ``[H, W, 3]``.
        mask: classes, of any size.
        names, palette: of all classes.

    Returns:
        RGB, uint8, wider than ``overlay``.
    """
    shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
    order = [int(i) for i in np.argsort(-shares, kind='stable') if shares[i]]
    text = 16 if overlay.shape[0] < 800 else overlay.shape[0] // 50
    fitting = max(1, (overlay.shape[0] - text) // (2 * text))
    if len(order) > fitting:
        order, rest = order[: fitting - 1], order[fitting - 1 :]
    else:
        rest = []
    rows = [(f'{names[i]} ({_percent(shares[i])})', palette[i]) for i in order]
    if rest:
        rows.append((f'{len(rest)} more ({_percent(shares[rest].sum())})', (255, 255, 255)))
    panel = _draw_rows(rows, text)
    height = max(overlay.shape[0], panel.height)
    joined = Image.new('RGB', (overlay.shape[1] + panel.width, height), 'white')
    joined.paste(Image.fromarray(overlay), (0, 0))
    joined.paste(panel, (overlay.shape[1], 0))
    return np.asarray(joined)


def draw_legend(names: Sequence[str], palette: Sequence[Sequence[int]]) -> np.ndarray:
    """The legend of all classes, in columns: value in the mask, name and colour.

    Returns:
        RGB, uint8.
    """
    rows = [
        (f'{i}  {name}', colour)
        for i, (name, colour) in enumerate(zip(names, palette, strict=True))
    ]
    per_column = max(12, round((8 * len(rows)) ** 0.5))
    columns = [_draw_rows(rows[at : at + per_column], 18) for at in range(0, len(rows), per_column)]
    size = sum(column.width for column in columns), max(column.height for column in columns)
    joined = Image.new('RGB', size, 'white')
    left = 0
    for column in columns:
        joined.paste(column, (left, 0))
        left += column.width
    return np.asarray(joined)


def _percent(share: float) -> str:
    return f'{100 * share:.0f} %' if share >= 0.01 else '< 1 %'


def _draw_rows(rows: Sequence[tuple[str, Sequence[int]]], text: int) -> Image.Image:
    """Squares of colour with a text beside them, one below the other."""
    font_file = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'
    font = ImageFont.truetype(str(font_file), text)
    width = max(round(font.getlength(label)) for label, _ in rows)
    panel = Image.new('RGB', (width + 4 * text, 2 * text * len(rows) + text), 'white')
    draw = ImageDraw.Draw(panel)
    for number, (label, colour) in enumerate(rows):
        top = 2 * text * number + text
        box = (text, top, 2 * text + text // 2, top + text)
        draw.rectangle(box, tuple(colour), (90, 90, 90))
        draw.text((3 * text, top + text // 2), label, (20, 20, 20), font, anchor='lm')
    return panel
