"""What a page shows of a model: images recorded one by one, with names of classes."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..analysis.inspection import Inspection, Inspector
from ..analysis.overlay import make_palette
from ..analysis.page import HEAD_LIMIT, Subject
from .class_names import check_count, find_classes

__all__ = ['HEADS', 'look_at', 'name_classes']

#: ``--heads`` -> ``head_limit`` of a Recorder.
HEADS = {'auto': HEAD_LIMIT, 'all': sys.maxsize, 'mean': 0}


def look_at(
    inspector: Inspector,
    name: str,
    images: Sequence[str | Path],
    heads: str = 'auto',
    classes: list[str] | None = None,
) -> Subject:
    """Record images in a model, for a page.

    Args:
        inspector: of the model.
        name: of the model.
        images: paths.
        heads: a key of ``HEADS``.
        classes: names of the classes of its decoder; by default those of the config's data set.

    Raises:
        FileNotFoundError, ValueError: as :class:`~locat_mm.analysis.inspection.Inspector`; or if
            the classes are not as many as the model's.
    """
    found: list[Inspection] = []
    for image in tqdm(images, desc=name, unit='image', dynamic_ncols=True):
        found.append(inspector(image, HEADS[heads], features=True))
    if found[0].segmentation is None:
        return Subject(name, found)
    return Subject(name, found, *name_classes(inspector, classes))


def name_classes(
    inspector: Inspector, classes: list[str] | None = None
) -> tuple[list[str], list[list[int]]]:
    """Names and colours of the classes of a segmentor.

    Raises:
        ValueError: if the classes are not as many as the model's, or nothing names them.
    """
    names, palette = find_classes(inspector.cfg, {}, classes)
    check_count(names, getattr(inspector.model, 'num_classes', None))
    return names, palette or make_palette(names)
