"""What is wrong with a sample's files, in words."""

import errno
import io
import os

import cv2
import numpy as np
from mmengine.fileio import get
from PIL import Image

__all__ = ['BadSampleError', 'check_end', 'find_damage']

#: Formats of which both decoders know every kind that OpenMMLab reads.
_STRICT = ('.jpg', '.jpeg', '.png')
_IMAGES = (*_STRICT, '.bmp', '.gif', '.pgm', '.ppm', '.tif', '.tiff', '.webp')
#: Errors of a file; others, such as too many open files, are errors of the machine.
_OF_FILE = {errno.EACCES, errno.EIO, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.EPERM}


class BadSampleError(ValueError):
    """A sample that cannot be used; the message begins with its file's name.

    Args:
        message: names the file.
        kind: what is wrong, for reports that are sorted by it.
    """

    def __init__(self, message: str, kind: str = 'damaged') -> None:
        super().__init__(message)
        self.kind = kind


def find_damage(path: str, backend_args: dict | None = None) -> str | None:
    """Read and decode an image or a mask, with OpenCV and with Pillow.

    Args:
        path: the file; of an unknown suffix it only has to be there.
        backend_args: of mmengine's file backend.

    Returns:
        what is wrong with it, to stand behind its name, or None.

    Raises:
        OSError: if it cannot be read for a reason that is not the file's.
    """
    try:
        content = get(path, backend_args=backend_args)
    except OSError as error:
        if error.errno not in _OF_FILE:
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
    """Stop at a JPEG that ends too early, which decoders turn to grey.

    OpenCV does so with a tail of zeros, as a crash leaves them, and before 4.11 with any tail
    that is missing. Reads the last two bytes, and more only if they are not those of an end.
    Other formats have checksums or lengths that decoders heed.

    Args:
        path: a file on a file system of this machine.

    Raises:
        BadSampleError: if its end is not there.
        OSError: if it cannot be read.
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
    """Whether a JPEG has no end behind its pixels; what follows the end does not matter."""
    if not content.startswith(b'\xff\xd8'):
        return False
    at = 2  # header segments: a thumbnail in one of them has an end of its own
    while content[at : at + 1] == b'\xff' and content[at : at + 2] != b'\xff\xda':
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')
    return content.rfind(b'\xff\xd9') < at


def _pillow(content: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception as error:  # damage can make a decoder raise anything; none of it is lost
        return str(error).partition('<_io')[0].strip() or type(error).__name__
    return None


def _opencv(content: bytes) -> str | None:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        return error.err
    return None if image is not None else 'OpenCV cannot read it'
