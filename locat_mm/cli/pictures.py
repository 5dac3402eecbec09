"""Pictures of a user: found, and read whatever their kind."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from PIL import ExifTags, Image
from tqdm import tqdm

from ..datasets import BadSampleError, find_damage

__all__ = ['SUFFIXES', 'Picture', 'find_pictures', 'for_each_picture', 'read_picture']

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
#: Photographs of formats that OpenCV does not read: reported, not silently left out.
_UNREADABLE = ('.arw', '.avif', '.cr2', '.cr3', '.dng', '.heic', '.heif', '.nef', '.raw')
#: A 16-bit image with smaller values is nearly black once it has 8 bits.
_DARKEST_16_BIT = 4096
#: OpenCV's level of logging.
_ONLY_ERRORS = 2


@dataclass(frozen=True)
class Picture:
    """An image file.

    Attributes:
        path: the file.
        name: of its results: the path below the folder that was given, without suffix.
    """

    path: Path
    name: str


def find_pictures(
    inputs: Sequence[str],
    excluded: Sequence[str | Path] = (),
    suffixes: tuple[str, ...] = SUFFIXES,
) -> list[Picture]:
    """The images that a user means, each with a name of its own.

    Args:
        inputs: files, folders (searched with their subfolders) and patterns (``'a/**/*.jpg'``).
        excluded: folders whose files are no input even if they lie inside a folder of images:
            results, masks.
        suffixes: of the files in a folder that are meant.

    Returns:
        in the order of their paths, each file once.

    Raises:
        FileNotFoundError: if there is no such file or folder, or nothing matches a pattern.
        ValueError: if a folder has no image.
    """
    paths: list[Path] = []
    roots: list[Path] = []
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            found = [file for file in sorted(path.rglob('*')) if _is_picture(file, suffixes)]
            if not found:
                raise ValueError(
                    f'{path} has no image: none of its files ends in {", ".join(suffixes)}'
                )
            roots.append(path)
        elif path.is_file():
            found = [path]
            roots.append(path.parent)
        elif glob.has_magic(text):
            found = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
            found = [file for file in found if _is_picture(file, suffixes)]
            if not found:
                raise FileNotFoundError(f'no image matches {text}')
            fixed = path.parent
            while glob.has_magic(str(fixed)):
                fixed = fixed.parent
            roots.append(fixed)
        else:
            raise FileNotFoundError(f'there is no file or folder {text}')
        paths += found
    skipped = {Path(folder).absolute() for folder in excluded}
    unique = {path.absolute(): path for path in sorted(paths)}
    kept = {path: given for path, given in unique.items() if skipped.isdisjoint(path.parents)}
    if not kept:
        raise ValueError(f'all images are in folders of results or masks: {excluded}')
    root = Path(os.path.commonpath([root.absolute() for root in roots]))
    names = [_without_suffix(path.relative_to(root)).as_posix() for path in kept]
    # a.jpg and a.png are different images; on some file systems so are A.png and a.png not.
    times = Counter(name.casefold() for name in names)
    return [
        Picture(given, name if times[name.casefold()] == 1 else path.relative_to(root).as_posix())
        for (path, given), name in zip(kept.items(), names, strict=True)
    ]


def _is_picture(path: Path, suffixes: tuple[str, ...]) -> bool:
    # Hidden files are those of the system, such as ._photo.jpg.
    is_shown = path.is_file() and path.name[0] != '.'
    return is_shown and path.name.lower().endswith((*suffixes, *_UNREADABLE))


def _without_suffix(path: Path) -> Path:
    name = path.name
    return path.with_name(name[:-7]) if name.lower().endswith('.nii.gz') else path.with_suffix('')


def read_picture(path: str | Path) -> np.ndarray:
    """Read an image as OpenMMLab's ``LoadImageFromFile`` does, or say what is wrong with it.

    Grey images get three channels, transparency is dropped, 16 bits become 8 (divided by 256),
    CMYK becomes RGB, and the rotation that EXIF states is applied.

    Args:
        path: the file; its content decides how it is decoded, not its suffix.

    Returns:
        BGR, uint8 ``[H, W, 3]``.

    Raises:
        BadSampleError: a ValueError that begins with the file's name, if it is damaged, no
            image, of a kind that is not supported, or would turn black with 8 bits.
    """
    path = Path(path)
    if path.suffix.lower() in _UNREADABLE:
        raise BadSampleError(f'{path} cannot be read as {path.suffix}: convert it to JPEG or PNG')
    damage = find_damage(str(path))
    if damage is not None:
        raise BadSampleError(f'{path} {damage}')
    kind, mode, orientation = _read_header(path)
    if mode == 'F':
        raise BadSampleError(f'{path} has floating-point values: convert it to 8 or 16 bits')
    content = path.read_bytes()
    image = mmcv.imfrombytes(content, flag='color_ignore_orientation')
    if image is None:
        raise BadSampleError(f'{path} is no image that OpenCV can read')
    if mode.startswith('I'):
        deep = mmcv.imfrombytes(content, flag='unchanged')
        if deep.max() < _DARKEST_16_BIT:
            raise BadSampleError(
                f'{path} has 16 bits but no value above {deep.max()}, so it would be black with '
                '8 bits: scale its values to 0..65535, or to 8 bits'
            )
    if kind == 'TIFF':  # OpenCV always turns these
        return image
    return np.ascontiguousarray(_TURNS.get(orientation, lambda image: image)(image))


def _read_header(path: Path) -> tuple[str, str, int]:
    """Format and mode in Pillow's words, and EXIF's orientation."""
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return str(image.format), image.mode, orientation
    except OSError:  # a kind that only OpenCV knows, which has no EXIF
        return '', '', 1


#: What each orientation of EXIF asks for.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}


def for_each_picture(
    pictures: Sequence[Picture],
    work: Callable[[Picture, Any], None],
    label: str,
    read: Callable[[Path], Any] = read_picture,
) -> list[str]:
    """Read pictures one by one and do some work on each, with a progress bar.

    A picture that cannot be read, or on which the work fails, gets one line on stderr, and the
    next one follows: the caller has tried the model, so that the fault is the picture's.

    Args:
        pictures: in order.
        work: gets a picture and what ``read`` gives for it.
        label: of the bar.
        read: by default gives the pixels (BGR, uint8).

    Returns:
        the lines of the pictures that failed.
    """
    failed = []
    level = cv2.setLogLevel(_ONLY_ERRORS)  # its warnings repeat what is said here
    for picture in tqdm(pictures, desc=label, unit='image', dynamic_ncols=True):
        image = None
        try:
            image = read(picture.path)
            work(picture, image)
            continue
        except BadSampleError as error:
            line = str(error)
        except (AssertionError, RuntimeError, ValueError, cv2.error) as error:
            line = f'{picture.path} {_explain(error, image)}'
        failed.append(' '.join(line.split()))
        tqdm.write(f'FAILED: {failed[-1]}', file=sys.stderr)
    cv2.setLogLevel(level)
    return failed


def _explain(error: Exception, image: Any) -> str:
    size = 'not decoded' if image is None else 'read by the config'
    if isinstance(image, np.ndarray):
        size = f'{image.shape[1]}×{image.shape[0]} pixels'
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return f'({size}) needs more memory than there is: use sliding windows or a smaller copy'
    return f'({size}) fails: {type(error).__name__}: {error}'
