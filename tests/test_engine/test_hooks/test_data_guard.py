"""Runs on data that is broken: one error with the file's name, or a run without it and a report."""

import multiprocessing
import signal
from pathlib import Path

import cv2
import mmengine.runner.loops as loops
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset

from locat_mm.config import load_config
from locat_mm.engine import build_runner
from tests.support import ROOT

SCENES, OBJECTS = Path('data/digit_scenes/scenes'), Path('data/digit_scenes/objects')
DEMO = dict(
    segment={
        'train_cfg.max_iters': 6,
        'train_cfg.val_interval': 6,
        'train_dataloader.batch_size': 4,
        'model.backbone.init_cfg': None,
        'model.backbone.frozen': False,
        'model.backbone.drop_path_rate': 0.3,
        'param_scheduler': None,
        'default_hooks.checkpoint.interval': 3,
    },
    classify={
        'train_cfg.max_epochs': 2,
        'train_cfg.val_interval': 2,
        'train_dataloader.batch_size': 4,
        'val_dataloader.batch_size': 4,
        'param_scheduler': None,
    },
)
SKIP = {'default_hooks.data_guard.on_error': 'skip'}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Twelve images of each kind to train with, four to validate."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (('training', 12), ('validation', 4)):
        for kind in ('images', 'annotations'):
            (SCENES / kind / split).mkdir(parents=True)
        for i in range(count):
            image, mask = rng.integers(0, 255, (72, 72, 3)), rng.integers(0, 11, (72, 72))
            cv2.imwrite(str(SCENES / 'images' / split / f'{i}.png'), image)
            cv2.imwrite(str(SCENES / 'annotations' / split / f'{i}.png'), mask)
    for split, count in (('train', 12), ('val', 4)):
        for i in range(count):
            folder = OBJECTS / split / str(i % 2)
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{i}.jpg'), rng.integers(0, 255, (48, 48, 3)))


def runner(task, num_workers=0, checkpoint=None, resume=False, work_dir='out', **changes):
    loaders = [f'{split}_dataloader' for split in ('train', 'val', 'test')]
    for loader in loaders:
        changes[f'{loader}.num_workers'] = num_workers
        changes[f'{loader}.persistent_workers'] = num_workers > 0
    path = str(ROOT / 'configs' / 'demo' / f'vit_{task}.py')
    cfg = load_config(path, {**DEMO[task], **changes}, work_dir)
    cfg.resume = resume
    return build_runner(cfg, checkpoint)


@pytest.fixture(autouse=True)
def no_workers_left():
    """PyTorch waits 5 s for each that has fetched ahead. Models so small want one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    kill_workers()


def kill_workers():
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        worker.kill()


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def cut_jpeg(path):
    """As a crash leaves it, and decoders read it without an error."""
    path.write_bytes(path.read_bytes()[:-30] + bytes(4096))


def empty(path):
    path.write_bytes(b'')


def narrow(path):
    cv2.imwrite(str(path), np.zeros((72, 71), np.uint8))


def class_11(path):
    cv2.imwrite(str(path), np.full((72, 72), 11, np.uint8))


BROKEN = {
    'image cut': ('segment', SCENES / 'images/training/5.png', cut, 'cannot be decoded'),
    'image empty': ('segment', SCENES / 'images/training/5.png', empty, 'is empty'),
    'mask cut': ('segment', SCENES / 'annotations/training/5.png', cut, 'cannot be decoded'),
    'mask gone': ('segment', SCENES / 'annotations/training/5.png', Path.unlink, ''),
    'mask narrow': ('segment', SCENES / 'annotations/training/5.png', narrow, r': .*\(72, 71\)'),
    'class 11': ('segment', SCENES / 'annotations/training/5.png', class_11, ': class 11 is'),
    'jpeg cut': ('classify', OBJECTS / 'train/1/5.jpg', cut_jpeg, 'is truncated'),
}


@pytest.mark.parametrize(
    'case, num_workers', [*((case, 0) for case in BROKEN), ('mask cut', 2), ('jpeg cut', 1)]
)
def test_training_stops_with_the_name(case, num_workers):
    task, path, break_it, message = BROKEN[case]
    break_it(path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        runner(task, num_workers).train()
    last = str(caught.value).strip().splitlines()[-1]
    assert str(path) in last and 'check_dataset.py' in last
    caught.match(rf'{path} ?{message}')


@pytest.mark.parametrize('case, num_workers', [('mask cut', 0), ('jpeg cut', 1)])
def test_validation_and_testing_stop_too(case, num_workers):
    """Skipping is for training alone: scores would be those of another set."""
    task, path, break_it, message = BROKEN[case]
    path = Path(str(path).replace('train', 'val').replace('valing', 'validation'))
    if task == 'segment':
        path = path.with_name('3.png')
    else:
        path = path.with_name('3.jpg')
    training = runner(task, **SKIP)
    training.train()
    name = 'iter_6' if task == 'segment' else 'epoch_2'
    break_it(path)
    with pytest.raises(ValueError, match=f'{path} {message}'):
        runner(task, checkpoint=f'out/{name}.pth', num_workers=num_workers).test()
    with pytest.raises(ValueError, match=f'{path} {message}'):
        runner(task, **SKIP).train()


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_skipping_is_reported_and_reproducible(capfd):
    """Without workers, with two, and resumed: one and the same run."""
    for case in ('image cut', 'mask narrow'):
        BROKEN[case][2](BROKEN[case][1])
    (SCENES / 'annotations/training/7.png').unlink()
    runner('segment', work_dir='whole', **SKIP).train()
    skipped = Path('whole/skipped_samples.txt').read_text().splitlines()
    assert {line.split('\t')[0] for line in skipped} == {
        str(SCENES / f'images/training/{i}.png') for i in (5, 7)
    }
    log = capfd.readouterr().out
    assert '1 files are not there' in log and 'annotations/training/7.png' in log
    assert '2 broken samples were skipped so far' in log
    runner('segment', num_workers=2, **SKIP).train()
    kill_workers()
    expected, last = weights('whole/iter_6.pth'), weights('out/iter_6.pth')
    Path('out/iter_6.pth').unlink()
    Path('out/last_checkpoint').write_text('out/iter_3.pth')
    runner('segment', resume=True, **SKIP).train()
    assert len(Path('out/skipped_samples.txt').read_text().splitlines()) == 2
    for key, value in expected.items():
        torch.testing.assert_close(last[key], value, rtol=0, atol=0)
        torch.testing.assert_close(weights('out/iter_6.pth')[key], value, rtol=0, atol=0)


def start_at_once(monkeypatch):
    """As upstream's loop: workers start when it is built, before any hook is called."""
    lazy = loops._InfiniteDataloaderIterator

    class Eager(lazy):
        def __init__(self, dataloader):
            super().__init__(dataloader)
            if self._iterator is None:  # twice would use up an InfiniteSampler
                self._iterator = iter(dataloader)

    monkeypatch.setattr(loops, '_InfiniteDataloaderIterator', Eager)


def test_workers_that_started_before_the_hook_are_guarded(monkeypatch):
    start_at_once(monkeypatch)
    narrow(BROKEN['mask narrow'][1])
    changes = {
        'default_hooks.exact_resume.type': 'EmptyCacheHook',
        'train_dataloader.dataset.pipeline': [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    }
    with pytest.raises(ValueError, match=r'training/5.png: the mask has shape \(72, 71\)'):
        runner('segment', 2, **changes).train()


def test_too_many_broken_samples_stop_skipping_too():
    for i in range(12):
        empty(SCENES / f'images/training/{i}.png')
    with pytest.raises(ValueError, match='More than max_skipped=3 samples are broken'):
        runner('segment', **SKIP, **{'default_hooks.data_guard.max_skipped': 3}).train()


@pytest.mark.parametrize('on_error', ['ignore', None])
def test_the_hook_refuses_what_it_does_not_know(on_error):
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip'"):
        runner('segment', **{'default_hooks.data_guard.on_error': on_error})


def test_labels_and_splits(tmp_path):
    """A split with a label out of range, one that names what is not there, and an empty one."""
    split = {
        'train_dataloader.dataset.ann_file': 'train.txt',
        'train_dataloader.dataset.classes': ['zero', 'one'],
    }
    names = [f'{i % 2}/{i}.jpg {i % 2}' for i in range(12)]
    (OBJECTS / 'train.txt').write_text('\n'.join([*names[:-1], '1/11.jpg 12']))
    with pytest.raises(ValueError, match='train/1/11.jpg: label 12 is outside the 10 classes'):
        runner('classify', **split).train()
    (OBJECTS / 'train.txt').write_text('\n'.join([*names, '1/13.jpg 1', '2/14.jpg 2']))
    with pytest.raises(FileNotFoundError, match='of 14 samples 2 .*train/1/13.jpg.*train/2/14.jpg'):
        runner('classify', **split).train()
    (OBJECTS / 'train.txt').write_text('')
    with pytest.raises(ValueError, match='objects/train.txt, the split .ann_file., names no'):
        runner('classify', **split)
    (OBJECTS / 'train.txt').unlink()
    with pytest.raises(FileNotFoundError, match='no file .*objects/train.txt, the split'):
        runner('classify', **split)


def test_empty_folders(monkeypatch):
    for path in (SCENES / 'images' / 'training').iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"images/training .* has no file that ends in '.png'"):
        runner('segment')
    # By another tool, without our look at the config.
    monkeypatch.setattr('locat_mm.engine.launch.check_sources', lambda *args: None)
    with pytest.raises(ValueError, match='train_dataloader: BaseSegDataset has no samples'):
        runner('segment', **{'train_dataloader.dataset.serialize_data': False}).train()


@pytest.mark.parametrize('size', [(1, 40), (40, 1), (3, 2)])
def test_tiny_images_pass_the_recipes(size, tmp_path):
    """Of ImageNet and ADE20K, in training and testing."""
    for kind, suffix, shape in (('i', 'jpg', (*size, 3)), ('m', 'png', size)):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / f'0.{suffix}'), np.ones(shape, np.uint8))
    for name in ('locat/locatvit_tiny_ade20k', 'locat/locatvit_tiny_imagenet'):
        cfg = load_config(str(ROOT / 'configs' / f'{name}.py'))
        init_default_scope(cfg.default_scope)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            image, mask = (str(tmp_path / part) for part in ('i/0.jpg', 'm/0.png'))
            info = dict(img_path=image, seg_map_path=mask, seg_fields=[], gt_label=1)
            info['reduce_zero_label'] = True
            pipeline = BaseSegDataset(pipeline=loader.dataset.pipeline, lazy_init=True).pipeline
            assert pipeline(info)['inputs'].ndim == 3
