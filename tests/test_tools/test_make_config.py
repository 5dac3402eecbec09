"""tools/misc/make_config.py: the config fits the data, and bad data gives one clear error."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope
from PIL import Image

from locat_mm.cli import config_text
from locat_mm.config import config_path, load_config
from locat_mm.datasets import MaskFolder, check_zero_label, choose_zero_label
from locat_mm.datasets.folders import Split
from locat_mm.datasets.report import ValueUse
from locat_mm.models import LocAtViT

FAMILIES = ('vit', 'regvit', 'ropevit', 'jumbo', 'swin')
SMALL = dict(embed_dim=192, depth=1, num_heads=3)


def draw(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(path)


def make_masks(folder, values=(0, 1, 2), splits=('train', 'val'), count=4, suffix='.png'):
    """Images and masks, and a class file with as many names as values."""
    rng = np.random.default_rng(0)
    for split in splits:
        for i in range(count):
            mask = rng.choice(values, (24, 32))
            draw(folder / 'images' / split / f'{i}.jpg', rng.integers(0, 255, (24, 32, 3)))
            draw(folder / 'masks' / split / f'{i}{suffix}', mask)
    write_classes(folder, *[f'name {value}' for value in values])


def write_classes(folder, *names):
    (folder / 'classes.txt').write_text('\n'.join(names) + '\n')


def make_classes(folder, splits=('train', 'val'), count=3):
    rng = np.random.default_rng(1)
    for split in splits:
        for name in ('cat', 'white dog'):
            for i in range(count):
                pixels = rng.integers(0, 255, (20, 20, 3))
                draw(folder / split / name / f'{i}.png', pixels)


@pytest.fixture
def tool(root, tmp_path, monkeypatch):
    """The tool's ``main`` with the usual arguments, in an empty folder; returns the config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LocAtViT.ARCHS, 'tiny', SMALL)
    main = runpy.run_path(str(root / 'tools/misc/make_config.py'))['main']

    def run(*args, task='decode', model='locatvit_tiny', out='mine.py'):
        DefaultScope._instance_dict.clear()
        main(['data', '--model', model, '--task', task, '--out', out, *args])
        return load_config(out)

    return run


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights of a backbone."""
    path = tmp_path / 'backbone.pth'
    model = LocAtViT(arch=SMALL, gaug=True, img_size=224, patch_size=16)
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def labels(cfg, split):
    """The values that training reads, 255 included."""
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    return {int(v) for sample in samples for v in sample.gt_sem_seg.data.unique()}


def train(root, monkeypatch, config, *options):
    argv = ['train.py', config, '--cfg-options', *options]
    argv += ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    argv += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
    monkeypatch.setattr(sys, 'argv', argv)
    DefaultScope._instance_dict.clear()
    runpy.run_path(str(root / 'tools/train.py'), run_name='__main__')
    [log] = Path('work_dirs', Path(config).stem).glob('*/*.log')
    return log.read_text()


@pytest.mark.parametrize('is_class', [True, False], ids=['0 is a class', '0 has no label'])
def test_value_0_both_ways(tool, root, tmp_path, monkeypatch, checkpoint, capsys, is_class):
    make_masks(tmp_path / 'data')
    if not is_class:
        write_classes(tmp_path / 'data', 'leaf', 'stem')
    cfg = tool('--checkpoint', str(checkpoint))
    printed = capsys.readouterr().out
    assert f'reduce_zero_label = {not is_class}' in printed and '33.' in printed
    assert cfg.model.decode_head.num_classes == (3 if is_class else 2)
    assert cfg.reduce_zero_label is not is_class and cfg.model.backbone.frozen
    assert labels(cfg, 'val') == ({0, 1, 2} if is_class else {0, 1, 255})
    assert 15 <= len(Path('mine.py').read_text().splitlines()) <= 50
    short = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2')
    log = train(root, monkeypatch, 'mine.py', *short)
    assert 0 < float(re.findall(r'mIoU: ([\d.]+)', log)[-1]) <= 100
    saved = torch.load('work_dirs/mine/iter_2.pth', weights_only=False)
    start = torch.load(checkpoint)['state_dict']
    for key, value in saved['state_dict'].items():  # frozen
        if key.startswith('backbone.'):
            assert torch.equal(value, start[key.removeprefix('backbone.')])
    assert tuple(saved['meta']['dataset_meta']['classes']) == cfg.classes


def test_the_choice_can_be_overridden(tool, tmp_path):
    make_masks(tmp_path / 'data')
    write_classes(tmp_path / 'data', 'one', 'two', 'three', 'four')
    assert tool().reduce_zero_label is False
    cfg = tool('--reduce-zero-label', '--force')
    assert labels(cfg, 'val') == {0, 1, 255}
    assert cfg.model.backbone.init_cfg.checkpoint == 'hf-hub:sinahmr/locatvit_tiny'
    write_classes(tmp_path / 'data', 'one', 'two')
    with pytest.raises(ValueError, match='no name for value 2 in 8 masks'):
        tool('--no-reduce-zero-label', '--force')


def test_a_random_split_is_stated(tool, tmp_path, capsys):
    make_masks(tmp_path / 'data', splits=('',), count=10, suffix='_mask.png')
    tool('--val-fraction', '0.3', '--seed', '4')
    assert '7 images to train on, 3 to validate on, split at random' in capsys.readouterr().out
    parts = [Path(f'mine_{split}.txt').read_text().split() for split in ('train', 'val')]
    assert sorted(parts[0] + parts[1]) == sorted(map(str, range(10)))
    tool('--val-fraction', '0.3', '--seed', '4', out='again.py')
    assert Path('again_val.txt').read_text().split() == parts[1]
    cfg = tool('--val-fraction', '0.3', '--seed', '5', '--force')
    assert Path('mine_val.txt').read_text().split() != parts[1]
    assert len(DATASETS.build(cfg.val_dataloader.dataset)) == 3
    assert cfg.train_dataloader.dataset.seg_map_suffix == '_mask.png'


def test_other_names_of_folders(tool, tmp_path):
    make_masks(tmp_path / 'data', splits=('training', 'validation'))
    (tmp_path / 'data/masks').rename(tmp_path / 'data/labels')
    assert labels(tool('--masks', 'labels'), 'val') == {0, 1, 2}
    for split in ('train', 'val'):  # train/images in place of images/train
        long = {'train': 'training', 'val': 'validation'}[split]
        for kind in ('images', 'labels'):
            (tmp_path / 'data' / split).mkdir(exist_ok=True)
            (tmp_path / 'data' / kind / long).rename(tmp_path / 'data' / split / kind)
    shutil.rmtree(tmp_path / 'data/images')
    cfg = tool('--masks', 'labels', '--force')
    assert cfg.val_dataloader.dataset.data_prefix == dict(
        img_path='val/images', seg_map_path='val/labels'
    )


@pytest.mark.parametrize('splits', [('train', 'val'), ('',)], ids=['split', 'one folder'])
def test_classification(tool, tmp_path, splits, capsys):
    make_classes(tmp_path / 'data', splits, count=5)
    (tmp_path / 'data' / splits[0] / 'cat/notes.txt').write_text('no image')
    cfg = tool('--from-scratch', task='classify')
    printed = capsys.readouterr().out
    assert 'white dog' in printed and 'not an image (1)' in printed
    assert cfg.model.head.num_classes == cfg.model.data_preprocessor.num_classes == 2
    init_default_scope('mmpretrain')
    train, val = (DATASETS.build(cfg[f'{s}_dataloader'].dataset) for s in ('train', 'val'))
    assert (len(train), len(val)) == ((10, 10) if len(splits) == 2 else (8, 2))
    for i in range(len(val)):
        info = val.get_data_info(i)
        assert Path(info['img_path']).parent.name == cfg.classes[info['gt_label']]


@pytest.mark.parametrize('task', config_text.TASKS)
def test_models_are_those_of_the_shipped_configs(task, tmp_path):
    """The written settings, merged with the bases, give the model of the shipped config."""
    splits = dict(train=Split(['a'] * 1000, 'images/train', 'masks/train'))
    splits['val'] = Split(['b'], 'images/val', 'masks/val')
    folder = MaskFolder(tmp_path, splits, False, '.jpg', '.png', [])
    out = tmp_path / 'mine.py'
    for prefix in ('', 'locat'):
        for family in FAMILIES:
            name = f'{prefix}{family}_base'
            model = config_text.find_model(name, task)
            text = config_text.config_text(
                task, name, model, 'weights.pth', folder, ['a', 'b'], False, out
            )
            assert max(map(len, text.splitlines())) <= 120
            out.write_text(text)
            mine = load_config(str(out))
            place = 'locat' if prefix else family
            leaf = f'{place}/{name}_{config_text.TASKS[task].leaf}.py'
            wanted = load_config(config_path(leaf))
            for cfg in (mine, wanted):
                for key in ('head', 'decode_head', 'auxiliary_head', 'data_preprocessor'):
                    (cfg.model.get(key) or {}).pop('num_classes', None)
                cfg.model.backbone.pop('init_cfg', None)
            assert mine.model == wanted.model
            if task != 'classify':
                assert mine.optim_wrapper == wanted.optim_wrapper
                assert mine.param_scheduler[-1].type == wanted.param_scheduler[-1].type


@pytest.mark.parametrize('count', [1, 2, 9, 100, 5_000, 2_000_000])
def test_lengths_fit_the_data(count):
    for task in config_text.TASKS:
        length = config_text.choose_length(task, count)
        assert length.interval >= 1 and length.steps % length.interval == 0
        assert length.batch_size <= max(count, 2)


def damage(name):
    def spoil(data):
        path = data / name
        path.write_bytes(path.read_bytes()[:30])

    return spoil


def rgb_masks(data):
    draw(data / 'masks/val/2.png', np.zeros((24, 32, 3)))


def deep_mask(data):
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(data / 'masks/val/2.png')


def jpeg_masks(data):
    for path in data.glob('masks/*/*.png'):
        draw(path.with_suffix('.jpg'), np.zeros((24, 32)))
        path.unlink()


def binary_masks(data):
    for path in data.glob('masks/*/*.png'):
        draw(path, np.eye(24, 32) * 255)


def empty(data):
    shutil.rmtree(data)
    data.mkdir()


BAD = {
    'empty folder': (empty, r'data is empty. Expected:\n  data/images/train/NAME.jpg'),
    'no folder': (lambda d: shutil.rmtree(d), 'there is no folder data'),
    'no images': (lambda d: (d / 'images').rename(d / 'photos'), 'It holds: classes.txt, masks/'),
    'no masks': (lambda d: shutil.rmtree(d / 'masks'), 'there is no folder data/masks/train'),
    'no val': (lambda d: shutil.rmtree(d / 'images/val'), 'images/val is not: both are needed'),
    'image without mask': (
        lambda d: (d / 'masks/val/3.png').unlink(),
        '1 of 8 images have no mask: data/images/val/3.jpg',
    ),
    'two kinds of images': (
        lambda d: (d / 'images/val/3.jpg').rename(d / 'images/val/3.png'),
        'end differently: 7 in .jpg, 1 in .png',
    ),
    'jpeg masks': (jpeg_masks, 'the masks are JPEG files, such as data/masks/train/0.jpg'),
    'rgb mask': (
        rgb_masks,
        '1 of 8 masks are RGB images, such as data/masks/val/2.png(.|\n)*colour',
    ),
    '16-bit mask': (deep_mask, 'mask of more than 8 bits'),
    '0 and 255': (binary_masks, 'the values 0 and 255 only'),
    'other size': (
        lambda d: draw(d / 'masks/val/1.png', np.zeros((24, 31))),
        r'masks/val/1.png: the mask has shape \(24, 31\)',
    ),
    'truncated image': (damage('images/val/1.jpg'), 'images/val/1.jpg is truncated'),
    'broken mask': (damage('masks/train/1.png'), 'masks/train/1.png cannot be decoded'),
    'no class file': (
        lambda d: (d / 'classes.txt').unlink(),
        'no file data/classes.txt(.|\n)*hold the values 0, 1, 2',
    ),
    'short class file': (lambda d: write_classes(d, 'one'), 'no name for value 1 in 8 masks'),
    'name missing': (
        lambda d: write_classes(d, 'background', 'leaf'),
        r"2 names, where value 0 is 'background': there is no name for value 2",
    ),
    'name twice': (lambda d: write_classes(d, 'a', 'b', 'a'), "line 3: 'a' occurs twice"),
    'empty line': (lambda d: write_classes(d, 'a', '', 'b'), 'line 2 is empty'),
    'no text': (lambda d: (d / 'classes.txt').write_bytes(b'\xff\xfe\x00'), 'no text in UTF-8'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_masks_give_one_error_and_no_file(tool, tmp_path, case, capsys):
    make_masks(tmp_path / 'data')
    spoil, message = BAD[case]
    spoil(tmp_path / 'data')
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tool()
    assert {p.name for p in tmp_path.iterdir()} <= {'data'}
    assert 'ERROR: ' in capsys.readouterr().err


def test_bad_class_folders(tool, tmp_path):
    data = tmp_path / 'data'
    data.mkdir()
    options = dict(task='classify')
    (data / 'photo.jpg').write_bytes(b'')
    with pytest.raises(ValueError, match='0 class folders'):
        tool('--from-scratch', **options)
    make_masks(data)
    with pytest.raises(ValueError, match='holds images and masks, and no class folders'):
        tool('--from-scratch', **options)
    shutil.rmtree(data)
    make_classes(data)
    shutil.rmtree(data / 'val/cat')
    with pytest.raises(ValueError, match='the same class folders; only one of them has cat'):
        tool('--from-scratch', **options)
    (data / 'val/cat').mkdir()
    with pytest.raises(FileNotFoundError, match='val/cat has no image'):
        tool('--from-scratch', **options)
    (data / 'val/cat/0.png').write_bytes(b'no png')
    with pytest.raises(ValueError, match='val/cat/0.png cannot be decoded'):
        tool('--from-scratch', **options)


def test_bad_arguments(tool, tmp_path, capsys):
    make_masks(tmp_path / 'data')
    with pytest.raises(ValueError, match='no model .locatvit_tny. (.|\n)*Did you mean locatvit'):
        tool(model='locatvit_tny')
    with pytest.raises(ValueError, match='no published weights of vit_tiny(.|\n)*--checkpoint'):
        tool(model='vit_tiny')
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        tool('--checkpoint', 'nowhere.pth')
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(ValueError, match='text.pth'):
        tool('--checkpoint', 'text.pth')
    for arguments, message in (
        (('--from-scratch',), 'learns nothing of use'),
        (('--val-fraction', '1'), 'between 0 and 1'),
        (('--out', 'mine.txt'), 'with .py'),
    ):
        with pytest.raises(SystemExit):
            tool(*arguments)
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob('*mine*'))
    (tmp_path / 'mine.py').write_text('# mine')
    with pytest.raises(FileExistsError, match='--force'):
        tool()
    assert (tmp_path / 'mine.py').read_text() == '# mine'


def test_the_rule():
    uses = {value: ValueUse(f'{value}.png', 1, 5) for value in (0, 1, 2, 255)}
    assert choose_zero_label(['a', 'b', 'c'], uses)[0] is False
    assert choose_zero_label(['a', 'b'], uses)[0] is True
    assert choose_zero_label(['a', 'b', 'c', 'd'], uses)[0] is False
    del uses[0]
    reduced, reason = choose_zero_label(['a', 'b', 'c'], uses)
    assert not reduced and '--reduce-zero-label' in reason
    with pytest.raises(ValueError, match='no name for value 1 in 1 masks, such as 1.png; value 2'):
        choose_zero_label(['a'], uses)
    with pytest.raises(ValueError, match='value 255 only'):
        choose_zero_label(['a'], {255: uses[255]})


def test_data_set_and_pipeline_that_differ_are_found():
    """A data set of one's own on ADE20K's pipelines, as a user would inherit them."""
    cfg = Config.fromfile(config_path('locat/locatvit_tiny_ade20k.py'))
    init_default_scope('mmseg')
    dataset = cfg.train_dataloader.dataset
    check_zero_label('train_dataloader', dataset, 'mmseg')
    dataset.type = 'BaseSegDataset'
    with pytest.raises(ValueError, match='train_dataloader: reduce_zero_label=True in the Load'):
        check_zero_label('train_dataloader', dataset, 'mmseg')
    wrapped = dict(type='RepeatDataset', times=2, dataset=dataset)
    with pytest.raises(ValueError, match='False is the default for BaseSegDataset'):
        check_zero_label('train_dataloader', wrapped, 'mmseg')
    dataset.reduce_zero_label = True
    check_zero_label('train_dataloader', wrapped, 'mmseg')
    dataset.reduce_zero_label = False
    with pytest.raises(ValueError, match='False is set for BaseSegDataset'):
        check_zero_label('train_dataloader', dataset, 'mmseg')
    dataset.pipeline[1].pop('reduce_zero_label')
    check_zero_label('train_dataloader', dataset, 'mmseg')
