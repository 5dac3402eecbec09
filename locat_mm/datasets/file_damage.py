"""Finds damaged image and mask files and describes the damage."""

import errno
import io
import os

import cv2
import numpy as np
from mmengine.fileio import get
from PIL import Image

__all__ = ['BadSampleError', 'check_end', 'find_damage']

#: Formats that both decoders fully support.
_STRICT = ('.jpg', '.jpeg', '.png')
_IMAGES = (*_STRICT, '.bmp', '.gif', '.pgm', '.ppm', '.tif', '.tiff', '.webp')
#: Errors of the file. Other errors, such as too many open files, are not the file's.
_FILE_ERRORS = {errno.EACCES, errno.EIO, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.EPERM}


class BadSampleError(ValueError):
    """A sample that cannot be used.

    Args:
        message: begins with the file's name.
        kind: of the problem; reports group by it.
    """

    def __init__(self, message: str, kind: str = 'damaged') -> None:
        super().__init__(message)
        self.kind = kind


def find_damage(path: str, backend_args: dict | None = None) -> str | None:
    """Read an image or a mask, and decode it with OpenCV and with Pillow.

    Args:
        path: the file. Files without an image suffix are only read.
        backend_args: of mmengine's file backend.

    Returns:
        the problem, as text that follows the file's name; None for a good file.

    Raises:
        OSError: if it cannot be read for a reason outside of the file.
    """
    try:
        content = get(path, backend_args=backend_args)
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise
        return f'cannot be read: {error.strerror}'
    if not content:
        return 'is empty (0 bytes)'
    if _is_cut(content):
        return _CUT
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _IMAGES:
        return None
    problems = [problem for decode in (_pillow, _opencv) if (problem := decode(content))]
    if problems and (suffix in _STRICT or len(problems) == 2):
        return f'cannot be decoded: {problems[0]} ({len(content)} bytes)'
    return None


def check_end(path: str) -> None:
    """Raise an error for a JPEG without its end, whose missing part decoders fill with grey.

    OpenCV does so for a tail of zeros, as a crash can leave, and before 4.11 for every missing
    tail. In most cases only the last two bytes are read. Other formats have checksums or lengths
    that decoders check.

    Args:
        path: a local file.

    Raises:
        BadSampleError: if the end is missing.
        OSError: if the file cannot be read.
    """
    if not path.lower().endswith(('.jpg', '.jpeg')):
        return
    with open(path, 'rb') as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 2, 0))
        if file.read() == b'\xff\xd9':
            return
        file.seek(0)
        content = file.read()
    if _is_cut(content):
        raise BadSampleError(f'{path} {_CUT}')


_CUT = 'is truncated: a JPEG whose end is missing'


def _is_cut(content: bytes) -> bool:
    """Whether a JPEG has no end marker behind its pixels. Bytes after the marker do not matter."""
    if not content.startswith(b'\xff\xd8'):
        return False
    at = 2  # skip the header segments, because a thumbnail in one of them has an end marker too
    while content[at : at + 1] == b'\xff' and content[at : at + 2] != b'\xff\xda':
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
    return content.rfind(b'\xff\xd9') < at


def _pillow(content: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception as error:  # damage can cause any exception; its message is returned
        return str(error).partition('<_io')[0].strip() or type(error).__name__
    return None


def _opencv(content: bytes) -> str | None:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        return error.err
    return None if image is not None else 'OpenCV cannot read it'
