"""A baseline without context: the class of the nearest colour among the training pixels."""

from pathlib import Path

import numpy as np
from mmcv import imread
from sklearn.metrics import jaccard_score
from sklearn.neighbors import KDTree

__all__ = ['colour_baseline', 'nearest_colour', 'read_pixels']

NO_LABEL = 255


def colour_baseline(scenes: Path) -> dict:
    """Classify every labelled validation pixel by its colour alone.

    Args:
        scenes: folder of images and masks.

    Returns:
        ``name`` and ``miou`` (percent), as a row of the table.
    """
    colours, labels = read_pixels(scenes, 'training')
    queries, truth = read_pixels(scenes, 'validation')
    predicted = nearest_colour(colours, labels, queries)
    miou = jaccard_score(truth, predicted, average='macro')
    return {'name': 'nearest colour', 'miou': round(100 * float(miou), 2)}


def read_pixels(scenes: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Colours ``[N, 3]`` and classes ``[N]`` of all labelled pixels of a split."""
    colours, labels = [], []
    for path in sorted((scenes / 'images' / split).glob('*.png')):
        mask = imread(scenes / 'annotations' / split / path.name, 'unchanged')
        labelled = mask != NO_LABEL
        colours.append(imread(path)[labelled])
        labels.append(mask[labelled])
    return np.concatenate(colours), np.concatenate(labels)


def nearest_colour(colours: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The most frequent label of the nearest colour.

    Args:
        colours: of the training pixels, uint8 ``[N, 3]``.
        labels: of the training pixels, uint8 ``[N]``.
        queries: colours, uint8 ``[M, 3]``.

    Returns:
        a label for each query. The smaller label wins a tie of labels.
    """
    # Millions of pixels have few different colours, so the tree holds each colour once.
    known, index = np.unique(_packed(colours), return_inverse=True)
    classes = int(labels.max()) + 1
    votes = np.bincount(index * classes + labels, minlength=len(known) * classes)
    best = votes.reshape(len(known), classes).argmax(1)
    asked, where = np.unique(_packed(queries), return_inverse=True)
    nearest = KDTree(_unpacked(known)).query(_unpacked(asked), return_distance=False)[:, 0]
    return best[nearest][where]


def _packed(colours: np.ndarray) -> np.ndarray:
    """Each colour as one number; numpy sorts rows slowly."""
    return colours.astype(np.int64) @ (65536, 256, 1)


def _unpacked(numbers: np.ndarray) -> np.ndarray:
    return np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=1)
