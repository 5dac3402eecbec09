"""tools/misc/check_dataset.py finds what was broken, names it, and leaves the rest alone."""

import json
import os
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmpretrain
import mmseg
import numpy as np
import pytest

from tests.support import ROOT, demo_config

SCENES = 'data/digit_scenes/scenes'


@pytest.fixture
def place(workplace, tmp_path, monkeypatch, capsys):
    """A copy of the digit scenes, to break; the tool's ``main`` runs there."""
    shutil.copytree(workplace.folder / 'data', tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    tool = runpy.run_path(str(ROOT / 'tools' / 'misc' / 'check_dataset.py'))
    return SimpleNamespace(folder=tmp_path, main=tool['main'], capsys=capsys)


def check(place, config, *args, fails=False, num_workers=0):
    """What the tool prints, and its report."""
    options = ['--out', 'report.json', '--num-workers', str(num_workers), *args]
    assert place.main([str(config), *options]) == fails
    return place.capsys.readouterr().out, json.loads(Path('report.json').read_text())


def count(place, folder, num_classes):
    """Pixels per class by another reader."""
    masks = (place.folder / SCENES / folder).glob('*.png')
    pixels = sum(np.bincount(cv2.imread(str(m), -1).ravel(), minlength=256) for m in masks)
    return pixels[:num_classes].tolist()


def test_whole_data_passes(place):
    printed, report = check(place, demo_config('vit_segment'), num_workers=1)
    assert 'no problems' in printed and report['problems'] == {}
    train = report['splits']['train']
    assert list(train['pixels_per_class'].values()) == count(place, 'annotations/training', 11)
    assert train['smallest_and_largest_width'] == [72] and train['samples'] == 24
    assert report['splits']['val']['samples'] == 6 and 'test' not in report['splits']
    printed, report = check(place, demo_config('vit_classify'), '--splits', 'val')
    assert sum(report['splits']['val']['labels_per_class'].values()) == 40


def test_all_that_is_broken_is_listed(place):
    images, masks = (place.folder / SCENES / kind for kind in ('images', 'annotations'))
    names = sorted(p.name for p in (images / 'training').iterdir())
    mask = cv2.imread(str(masks / 'training' / names[0]), -1)
    image = (images / 'training' / names[0]).read_bytes()
    (images / 'training' / names[0]).write_bytes(image[:-40])
    (images / 'training' / names[1]).write_bytes(b'')
    (masks / 'training' / names[2]).unlink()
    cv2.imwrite(str(masks / 'training' / names[3]), mask[:-1])
    cv2.imwrite(str(masks / 'training' / names[4]), np.full_like(mask, 77))
    cv2.imwrite(str(masks / 'training' / names[5]), mask.astype(np.uint16))
    cv2.imwrite(str(masks / 'training' / names[6]), np.full_like(mask, 255))
    shutil.copy(images / 'training' / names[7], images / 'validation' / 'copied.png')
    shutil.copy(masks / 'training' / names[7], masks / 'validation' / 'copied.png')
    for path in (masks / 'validation').iterdir():
        labels = cv2.imread(str(path), -1)
        cv2.imwrite(str(path), np.where(labels == 10, 0, labels))
    printed, report = check(place, demo_config('vit_segment'), fails=True)
    found = {
        kind: [Path(n.split()[1].rstrip(':')).name for n in names_]
        for kind, names_ in report['problems'].items()
    }
    assert found == {
        'damaged': names[:2],
        'unreadable': [names[2]],
        'mask of another size': [names[3]],
        'class out of range': [names[4]],
        'mask of more than 8 bits': [names[5]],
    }
    notes = report['notes']
    assert [n.endswith(names[6]) for n in notes['mask without a label']] == [True]
    assert notes['class without a sample'] == ['val: 10 9']
    [duplicate] = notes['in two data sets']
    assert 'copied.png is ' in duplicate and duplicate.endswith(names[7])
    for name in (*names[:6], '6 problems'):
        assert name in printed


def test_an_empty_data_set_is_a_problem(place):
    shutil.rmtree(place.folder / SCENES / 'images' / 'validation')
    (place.folder / SCENES / 'images' / 'validation').mkdir()
    _, report = check(place, demo_config('vit_segment'), '--splits', 'val', fails=True)
    [problem] = report['problems']['data set']
    assert 'images/validation' in problem and 'has no file' in problem


def test_jpegs_that_decode_with_a_warning_are_noted(place):
    """Damage in the middle, which no decoder calls an error."""
    folder = place.folder / 'data/digit_scenes/objects/val/0'
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    content = bytearray(cv2.imencode('.jpg', pixels)[1].tobytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    (folder / 'spoilt.jpg').write_bytes(content)
    printed, report = check(place, demo_config('vit_classify'), '--splits', 'val')
    [note] = report['notes']['decodes with a warning']
    assert 'spoilt.jpg: Corrupt JPEG data' in note and note in printed


def test_stock_configs_are_checked(place):
    """Of mmseg and mmpretrain, with their own pipelines."""
    root = Path(mmseg.__file__).parent / '.mim/configs/fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
    images, masks = (place.folder / 'ade' / kind / 'training' for kind in ('images', 'annotations'))
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(images / f'{i}.jpg'), np.full((9, 8, 3), i))
        cv2.imwrite(str(masks / f'{i}.png'), np.full((9, 8), 150 + i // 2))  # 151: class 150
    option = 'train_dataloader.dataset.data_root=ade'
    args = ('--splits', 'train', '--cfg-options', option)
    _, report = check(place, root, *args, fails=True)
    [problem] = report['problems']['class out of range']
    assert '2.png: class 150 is outside the 150 classes' in problem
    assert report['splits']['train']['pixels_per_class'] == {'flag': 2 * 72}
    root = Path(mmpretrain.__file__).parent / '.mim/configs/resnet/resnet18_8xb32_in1k.py'
    for wnid in range(2):
        (place.folder / 'in1k' / 'val' / f'n{wnid}').mkdir(parents=True)
        shutil.copy(images / '0.jpg', place.folder / 'in1k' / 'val' / f'n{wnid}')
    (place.folder / 'val.txt').write_text('n0/0.jpg 0\nn1/0.jpg 1000\nn1/1.jpg 7\n')
    dataset = 'val_dataloader.dataset'
    file = os.fspath(place.folder / 'val.txt')
    options = (f'{dataset}.data_root=in1k', f'{dataset}.ann_file={file}')
    args = ('--splits', 'val', '--cfg-options', *options)
    _, report = check(place, root, *args, fails=True)
    assert 'label 1000 is outside the 1000' in report['problems']['label out of range'][0]
    assert 'n1/1.jpg cannot be read' in report['problems']['unreadable'][0]
