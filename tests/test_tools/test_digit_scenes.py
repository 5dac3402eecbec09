"""The embedded data: layout, determinism, no scan in both splits."""

import cv2
import numpy as np
from sklearn.datasets import load_digits

from tests.support import ROOT


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob('*.png'))}


def test_layout_and_determinism(workplace):
    data = workplace.folder / 'data' / 'digit_scenes'
    first = files(data)
    assert len(list((data / 'objects' / 'train').glob('[0-9]/*.png'))) == 128
    assert len(list((data / 'objects' / 'val' / '3').glob('*.png'))) == 4
    for split, count in (('training', 24), ('validation', 6)):
        images = sorted(p.name for p in (data / 'scenes' / 'images' / split).glob('*.png'))
        masks = sorted(p.name for p in (data / 'scenes' / 'annotations' / split).glob('*.png'))
        assert images == masks and len(images) == count
    assert not data.with_name('digit_scenes.partial').exists()

    script = 'dataset_converters/digit_scenes.py'
    sizes = ('--objects', 10, 4, '--scenes', 3, 2)
    again, other = workplace.folder / 'again', workplace.folder / 'other'
    workplace.run_anew(script, *sizes, '--out-dir', again)
    workplace.run(script, *sizes, '--out-dir', other, '--seed', 1)
    written = files(again)
    # fewer images are a prefix of more
    assert all(first[name] == content for name, content in written.items())
    assert all(files(other)[name] != content for name, content in written.items())


def test_scenes_hold_several_digits_with_masks(workplace):
    scenes = workplace.folder / 'data' / 'digit_scenes' / 'scenes'
    for path in (scenes / 'images' / 'training').glob('*.png'):
        image = cv2.imread(str(path))
        mask = cv2.imread(str(scenes / 'annotations' / 'training' / path.name), -1)
        assert mask.dtype == np.uint8 and mask.shape == image.shape[:2]
        classes = np.unique(mask)
        assert classes[0] == 0 and 3 <= len(classes[1:]) <= 4 and classes.max() <= 10
        # digits are bright on a dark ground
        assert image[mask > 0].mean() > image[mask == 0].mean() + 40


def test_no_scan_is_in_both_splits():
    import importlib.util

    path = ROOT / 'tools' / 'dataset_converters' / 'digit_scenes.py'
    spec = importlib.util.spec_from_file_location('digit_scenes', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    splits = [
        {scan.tobytes() for scans in module.DigitSource(s).by_class for scan in scans}
        for s in ('train', 'val')
    ]
    assert not splits[0] & splits[1]
    assert sum(map(len, splits)) == len({d.tobytes() for d in load_digits().images / 16.0})


def test_sizes_that_cannot_be_drawn_are_refused(workplace):
    script = 'dataset_converters/digit_scenes.py'
    assert 'at least 16 px' in workplace.run(script, '--scene-size', 24, fails=True)
    assert 'must be positive' in workplace.run(script, '--cells', 0, fails=True)


def test_other_peoples_folders_are_not_replaced(workplace):
    folder = workplace.folder / 'precious'
    folder.mkdir()
    (folder / 'imagenet.tar').write_text('all of it')
    script = 'dataset_converters/digit_scenes.py'
    assert 'is no digit_scenes' in workplace.run(script, '--out-dir', folder, fails=True)
    assert (folder / 'imagenet.tar').exists()
