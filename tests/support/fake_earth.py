"""Maps of an Earth of coloured stripes, in the layout of those that land_cover.py reads."""

from pathlib import Path

import cv2
import numpy as np

__all__ = ['fake_earth']

#: IGBP class -> colour, BGR.
COLOURS = {
    **{0: (60, 20, 10), 1: (10, 60, 20), 7: (80, 110, 140), 9: (40, 90, 90), 10: (90, 160, 120)},
    **{11: (120, 120, 20), 12: (60, 180, 200), 13: (90, 90, 90), 15: (250, 250, 250)},
    16: (120, 170, 210),
}


def fake_earth(folder: Path, height: int = 360, stripe: int = 20) -> dict[str, Path]:
    """Write a picture of ``height`` rows and labels of 4/3 as many, as the real maps have.

    Args:
        folder: an existing folder.
        height: of the picture, in pixels.
        stripe: width of a region of one class, in degrees.

    Returns:
        ``image`` and ``labels``: the files.
    """
    rng = np.random.default_rng(0)
    classes = np.array(list(COLOURS))
    side = 180 // stripe
    regions = classes[rng.integers(len(classes), size=(side, 2 * side))].astype(np.uint8)
    sizes = {'image': height, 'labels': height * 4 // 3}
    maps = {
        kind: cv2.resize(regions, (2 * rows, rows), interpolation=cv2.INTER_NEAREST)
        for kind, rows in sizes.items()
    }
    colours = np.zeros((256, 3), int)
    colours[classes] = list(COLOURS.values())
    image = colours[maps['image']] + rng.integers(-4, 5, (*maps['image'].shape, 3))
    files = {'image': folder / 'earth.png', 'labels': folder / 'classes.tif'}
    cv2.imwrite(str(files['image']), image.clip(0, 255).astype(np.uint8))
    cv2.imwrite(str(files['labels']), maps['labels'])
    return files
