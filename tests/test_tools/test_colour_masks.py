"""tools/dataset_converters/colour_masks.py."""

import runpy

import numpy as np
import pytest
from PIL import Image

RED, BLACK, WHITE, BLUE = (200, 0, 0), (0, 0, 0), (255, 255, 255), (0, 0, 250)


@pytest.fixture
def convert(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(root / 'tools/dataset_converters/colour_masks.py'))['main']
    return lambda *args: main(['rgb', 'out', *args])


def draw(path, *colours, mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([colours, colours], np.uint8)).convert(mode).save(path)


def read(path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image)[0].tolist(), image.convert('RGB').getpixel((0, 0))


def test_with_a_palette(convert, tmp_path):
    draw(tmp_path / 'rgb/train/a.png', RED, BLACK, WHITE)
    draw(tmp_path / 'rgb/b.bmp', WHITE, RED, RED)
    draw(tmp_path / 'rgb/c.png', RED, WHITE, WHITE, mode='RGBA')
    (tmp_path / 'p.txt').write_text('200 0 0 red car\n255 255 255 -\n0 0 0 road\n')
    convert('--palette', 'p.txt')
    assert read(tmp_path / 'out/train/a.png') == ('P', [0, 1, 255], RED)
    assert read(tmp_path / 'out/b.png') == ('P', [255, 0, 0], WHITE)
    assert read(tmp_path / 'out/c.png')[1] == [0, 255, 255]
    assert (tmp_path / 'out/classes.txt').read_text() == 'red car\nroad\n'


def test_colours_are_found(convert, tmp_path, capsys):
    draw(tmp_path / 'rgb/a.png', RED, BLACK)
    draw(tmp_path / 'rgb/b.png', BLUE, WHITE)
    draw(tmp_path / 'rgb/c.png', WHITE, BLACK, mode='L')
    convert()
    assert read(tmp_path / 'out/a.png') == ('P', [2, 0], RED)
    assert read(tmp_path / 'out/b.png') == ('P', [1, 3], BLUE)
    assert read(tmp_path / 'out/c.png') == ('P', [3, 0], WHITE)
    found = (tmp_path / 'out/palette.txt').read_text()
    assert found.splitlines()[2] == '200 0 0 colour_200_0_0'
    assert 'out/classes.txt' in capsys.readouterr().out
    (tmp_path / 'out').rename(tmp_path / 'first')
    convert('--palette', 'first/palette.txt')
    assert (tmp_path / 'out/a.png').read_bytes() == (tmp_path / 'first/a.png').read_bytes()


def test_bad_input_gives_one_error_and_no_folder(convert, tmp_path):
    rgb = tmp_path / 'rgb'

    def fails(message, *args):
        with pytest.raises((ValueError, OSError), match=message):
            convert(*args)
        assert not (tmp_path / 'out').exists() and not list(tmp_path.glob('.*'))

    fails('there is no folder rgb')
    rgb.mkdir()
    fails('rgb has no image')
    draw(rgb / 'a.png', RED, BLUE, BLUE)
    draw(rgb / 'b.png', BLUE, WHITE)
    palette = tmp_path / 'p.txt'
    palette.write_text('200 0 0 red\n')
    fails(
        r'2 colours .* nothing was written:\n  0 0 250: 6 pixels, first in rgb/a.png\n'
        r'  255 255 255: 2 pixels, first in rgb/b.png',
        *('--palette', 'p.txt'),
    )
    for text, message in (
        ('200 0 0\n', 'line 1: .* is not "R G B name"'),
        ('200 0 256 red', 'numbers from 0 to 255'),
        ('1 2 3 a\n1 2 3 b', 'line 2: the colour 1 2 3 occurs twice'),
        ('1 2 3 -', 'has 0 classes'),
    ):
        palette.write_text(text)
        fails(message, '--palette', 'p.txt')
    fails('nowhere.txt', '--palette', 'nowhere.txt')
    draw(rgb / 'a.bmp', RED)
    fails('two masks have the same name')
    (rgb / 'a.bmp').unlink()
    draw(rgb / 'smooth.png', *[(i % 200, i // 200, 7) for i in range(300)])
    fails('more than 255 colours')
    (rgb / 'smooth.png').write_bytes(b'no png')
    fails('smooth.png cannot be decoded')
    (rgb / 'smooth.png').unlink()
    draw(rgb / 'c.jpg', RED)
    fails('1 masks are JPEG files')


def test_the_output_is_not_overwritten(convert, tmp_path, root):
    draw(tmp_path / 'rgb/a.png', RED)
    (tmp_path / 'out').mkdir()
    with pytest.raises(FileExistsError, match='out exists'):
        convert()
