"""Damage is found in files that other libraries wrote, and no whole file is called damaged."""

import errno
import io
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from locat_mm.datasets import BadSampleError, check_end, find_damage

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)


def jpeg(**options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, 'JPEG', **options)
    return file.getvalue()


def with_thumbnail() -> bytes:
    """A small JPEG, with an end of its own, in front of the pixels, as cameras write it."""
    small = jpeg(quality=5)
    segment = b'\xff\xe1' + (len(small) + 2).to_bytes(2, 'big') + small
    whole = jpeg()
    return whole[:2] + segment + whole[2:]


WHOLE = {
    'baseline.jpg': jpeg(),
    'progressive.jpg': jpeg(progressive=True),
    'restarts.jpeg': jpeg(restart_marker_blocks=1),
    'grey.JPEG': cv2.imencode('.jpg', PIXELS[..., 0])[1].tobytes(),
    'thumbnail.jpg': with_thumbnail(),
    'trailing.jpg': jpeg() + b'written behind the end',
    'colour.png': cv2.imencode('.png', PIXELS)[1].tobytes(),
    'mask.png': cv2.imencode('.png', PIXELS[..., 0])[1].tobytes(),
    'colour.bmp': cv2.imencode('.bmp', PIXELS)[1].tobytes(),
    'colour.webp': cv2.imencode('.webp', PIXELS)[1].tobytes(),
    'array.npy': b'no image, and none of our business',
}
IMAGES = [name for name in WHOLE if name != 'array.npy']
JPEGS = [name for name in WHOLE if name.lower().endswith(('.jpg', '.jpeg'))]


def write(folder, name, content) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize('name', WHOLE)
def test_whole_files_pass(name, tmp_path):
    path = write(tmp_path, name, WHOLE[name])
    assert find_damage(path) is None
    check_end(path)


@pytest.mark.parametrize('part', [0.3, 0.9])
@pytest.mark.parametrize('name', IMAGES)
def test_truncated_files_are_found(name, part, tmp_path):
    path = write(tmp_path, name, WHOLE[name].removesuffix(b'written behind the end'))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * part)])
    assert 'truncated' in find_damage(path) or 'cannot be decoded' in find_damage(path)


@pytest.mark.parametrize('name', JPEGS)
def test_jpegs_that_decoders_would_turn_to_grey(name, tmp_path):
    content = WHOLE[name].removesuffix(b'written behind the end')
    half = len(content) * 9 // 10
    zeros = content[:half] + bytes(4096)
    if name == 'baseline.jpg':  # a tail of zeros, as a crash leaves it, is no error for OpenCV
        assert cv2.imdecode(np.frombuffer(zeros, np.uint8), cv2.IMREAD_COLOR) is not None
    for damaged in (zeros, content[:half], content[:-1]):
        path = write(tmp_path, name, damaged)
        assert 'truncated' in find_damage(path)
        with pytest.raises(BadSampleError, match=f'{name} is truncated'):
            check_end(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    assert find_damage(str(tmp_path / 'a.jpg')) == 'cannot be read: No such file or directory'
    assert find_damage(str(tmp_path)) == 'cannot be read: Is a directory'
    assert find_damage(write(tmp_path, 'b.png', b'')) == 'is empty (0 bytes)'
    assert 'cannot be decoded' in find_damage(write(tmp_path, 'c.png', b'<html>not found'))
    flipped = bytearray(WHOLE['colour.png'])
    flipped[len(flipped) // 2] ^= 1
    assert 'cannot be decoded' in find_damage(write(tmp_path, 'd.png', bytes(flipped)))


def test_a_machine_without_file_handles_is_no_damage(tmp_path, monkeypatch):
    def refuse(path, backend_args=None):
        raise OSError(errno.EMFILE, 'Too many open files', path)

    monkeypatch.setattr('locat_mm.datasets.file_damage.get', refuse)
    with pytest.raises(OSError, match='Too many open files'):
        find_damage(write(tmp_path, 'a.jpg', WHOLE['baseline.jpg']))


def test_the_error_survives_processes():
    error = pickle.loads(pickle.dumps(BadSampleError('a.png: bad', 'of a kind')))
    assert (str(error), error.kind) == ('a.png: bad', 'of a kind')
