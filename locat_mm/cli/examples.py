"""Labelled examples of a user: masks found beside their pictures, read and checked."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets import BadSampleError
from ..helpers import listed
from .class_names import read_class_names
from .pictures import Picture, find_pictures, read_picture

__all__ = [
    'check_mask',
    'count_classes',
    'find_examples',
    'find_masks',
    'read_examples',
    'read_mask',
]

_SUFFIXES = ('.png', '.bmp', '.gif', '.tif', '.tiff')
_LOSSY = ('.jpg', '.jpeg')
#: Pillow's modes of one value per pixel; of a palette image the value is the index.
_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B')


def read_examples(
    images: str,
    masks: str,
    mask_suffix: str | None = None,
    classes: str | None = None,
    ignore_index: int = 255,
) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Examples with their masks, read and checked.

    Args:
        images, masks, mask_suffix: as for :func:`find_examples`.
        classes: a file with a class name per line; None: ``class_0`` and so on.
        ignore_index: value of the masks without label.

    Returns:
        images BGR, uint8 ``[H, W, 3]``; masks ``[H, W]``; class names.

    Raises:
        FileNotFoundError, ValueError: if an example is missing, damaged or inconsistent.
    """
    pairs = find_examples(images, masks, mask_suffix)
    labels = [read_mask(path) for _, path in pairs]
    count = count_classes(labels, ignore_index, masks)
    names = read_class_names(classes) if classes else [f'class_{i}' for i in range(count)]
    pixels = []
    for (picture, path), mask in zip(pairs, labels, strict=True):
        image = read_picture(picture.path)
        check_mask(mask, path, image.shape, len(names), ignore_index)
        pixels.append(image)
    return pixels, labels, names


def find_examples(
    images: str, masks: str, mask_suffix: str | None = None
) -> list[tuple[Picture, Path]]:
    """Pictures with their masks.

    Args:
        images: a file, folder or pattern.
        masks, mask_suffix: as for :func:`find_masks`.

    Raises:
        FileNotFoundError, ValueError: as :func:`locat_mm.cli.pictures.find_pictures` and
            :func:`find_masks`; or if an image has no mask.
    """
    # Masks may lie in a folder of their own inside that of the images, or beside the images.
    inside = [masks] if Path(masks).absolute() != Path(images).absolute() else []
    pictures = find_pictures([images], inside)
    if mask_suffix:
        pictures = [p for p in pictures if not p.path.name.endswith(mask_suffix)]
    found = find_masks(pictures, masks, mask_suffix)
    missing = [str(p.path) for p in pictures if p not in found]
    if missing:
        raise ValueError(
            f'{len(missing)} of {len(pictures)} example images have no mask in {masks} '
            f'({listed(missing, 3)}): a mask has the path of its image and the suffix '
            f'{mask_suffix or ".png"}'
        )
    return [(picture, found[picture]) for picture in pictures]


def find_masks(
    pictures: Sequence[Picture], folder: str, mask_suffix: str | None = None
) -> dict[Picture, Path]:
    """The masks of those pictures that have one.

    Args:
        pictures: whose names are those of the masks.
        folder: of the masks, with subfolders as those of the images; or the file of one mask.
        mask_suffix: what follows the name of a picture, such as ``'_mask.png'``; None: the
            suffix of any lossless image.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if no mask belongs to a picture, a mask is a JPEG, or two belong to one.
    """
    root = Path(folder).expanduser()
    if root.is_file() and len(pictures) == 1:
        _refuse_lossy(root)
        return {pictures[0]: root}
    if not root.is_dir():
        raise FileNotFoundError(f'there is no folder of masks {folder}')
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob('*')):
        name = path.relative_to(root).as_posix()
        if mask_suffix:
            if name.endswith(mask_suffix):
                found[name.removesuffix(mask_suffix)].append(path)
        elif path.suffix.lower() in (*_SUFFIXES, *_LOSSY):
            found[name.removesuffix(path.suffix)].append(path)
    if not found:
        raise ValueError(f'{folder} has no mask: none of its files ends in {mask_suffix or ".png"}')
    pairs = {}
    for picture in pictures:
        candidates = found.get(picture.name) or found.get(picture.name.rpartition('.')[0], [])
        lossless = [path for path in candidates if path.suffix.lower() not in _LOSSY]
        if len(lossless) > 1:
            raise ValueError(f'{picture.path} has several masks: {listed([*map(str, lossless)])}')
        if candidates and not lossless:
            _refuse_lossy(candidates[0])
        if lossless:
            pairs[picture] = lossless[0]
    if not pairs:
        raise ValueError(
            f'no mask in {folder} belongs to an image: there are {listed(list(found), 3)}, and the '
            f'images are {listed([picture.name for picture in pictures], 3)}'
        )
    return pairs


def _refuse_lossy(path: Path) -> None:
    if path.suffix.lower() in _LOSSY:
        raise ValueError(
            f'{path} is a JPEG, which changes values at the edges of classes: save masks as PNG, '
            'from the source and not from the JPEG'
        )


def read_mask(path: Path) -> np.ndarray:
    """The values of a mask ``[H, W]``.

    Raises:
        BadSampleError: a ValueError that begins with the file's name, if it is damaged or
            holds colours in place of classes.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _MODES:
                raise BadSampleError(
                    f'{path} has mode {image.mode}, so it holds colours and no classes: convert '
                    'it with tools/dataset_converters/colour_masks.py'
                )
            return np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError) as error:  # SyntaxError: Pillow's, for a damaged PNG
        raise BadSampleError(f'{path} cannot be read as a mask: {error}') from None


def check_mask(
    mask: np.ndarray, path: Path, shape: tuple[int, ...], num_classes: int, ignore_index: int
) -> None:
    """Check that a mask is of its image and of the classes.

    Raises:
        BadSampleError: if its size is not ``shape``, or a value is no class; names the value.
    """
    if mask.shape != tuple(shape[:2]):
        raise BadSampleError(
            f'{path} has {mask.shape[1]}×{mask.shape[0]} pixels and its image, turned as its EXIF '
            f'says, {shape[1]}×{shape[0]}'
        )
    values = np.unique(mask)
    wrong = values[((values < 0) | (values >= num_classes)) & (values != ignore_index)]
    if len(wrong):
        raise BadSampleError(
            f'{path} has the value {wrong[0]}, and there are {num_classes} classes (0 to '
            f'{num_classes - 1}; {ignore_index} is ignored): name all classes, or set '
            '--ignore-index'
        )


def count_classes(masks: Sequence[np.ndarray], ignore_index: int, folder: str) -> int:
    """The largest value of the masks plus one.

    Raises:
        ValueError: if they hold less than two classes.
    """
    values = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    classes = values[values != ignore_index]
    if len(classes) < 2:
        raise ValueError(
            f'the masks in {folder} hold {len(classes)} class ({classes.tolist()}) beside the '
            f'ignored value {ignore_index}, and two are needed: a mask has the number of the class '
            'in every pixel (0, 1, ...). If it marks an object by 255, write 1 instead'
        )
    return int(classes.max()) + 1
