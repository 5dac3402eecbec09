"""One clear error per mistake, before any work is lost."""

import argparse
import os
import re
import runpy
from pathlib import Path

import cv2
import mmpretrain
import mmseg
import numpy as np
import pytest
import torch

from locat_mm.config import check_keys, load_config, walk
from locat_mm.datasets import CheckAnnotations
from locat_mm.distribution import check_openmmlab
from locat_mm.engine import LayerDecayOptimWrapperConstructor, build_runner
from locat_mm.engine.launch import _check_flexible, _use_gloo
from tests.support import ROOT
from tests.support.golden import Golden


@pytest.fixture
def demo(root):
    return {
        task: str(root / 'configs' / 'demo' / f'locatvit_{task}.py')
        for task in ('classify', 'segment')
    }


NO_WORKERS = {
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'param_scheduler': None,
}


def write_objects(folder, label=0):
    for split in ('train', 'val'):
        path = folder / 'data' / 'digit_scenes' / 'objects' / split / str(label)
        path.mkdir(parents=True)
        for i in range(64):
            cv2.imwrite(str(path / f'{i}.png'), np.full((48, 48, 3), i, np.uint8))


def write_scenes(folder, mask):
    for split in ('training', 'validation'):
        for kind, content in (('images', np.zeros((72, 72, 3), np.uint8)), ('annotations', mask)):
            path = folder / 'data' / 'digit_scenes' / 'scenes' / kind / split
            path.mkdir(parents=True)
            for i in range(16):
                cv2.imwrite(str(path / f'{i}.png'), content)


@pytest.mark.parametrize(
    'name, source',
    [
        ('locat/locatvit_tiny_imagenet', 'data/imagenet/{train,val}/WNID'),
        ('locat/locatvit_tiny_ade20k', 'unpack it to data/ade/ADEChallengeData2016'),
        ('demo/vit_classify', 'python tools/dataset_converters/digit_scenes.py'),
    ],
)
def test_missing_data_says_where_it_belongs_and_how_to_get_it(
    name, source, root, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(str(root / 'configs' / f'{name}.py'))
    with pytest.raises(FileNotFoundError) as caught:
        build_runner(cfg)
    message = str(caught.value)
    assert 'belongs in data/' in message and str(tmp_path) in message and source in message


@pytest.mark.parametrize('key', ['train_cgf', 'modell', 'optim_wraper', 'default_hook'])
def test_a_misspelt_key_is_named(key, demo):
    with pytest.raises(ValueError, match=f'unknown key {key!r}.*Did you mean'):
        load_config(demo['classify'], {f'{key}.a': 1})


def test_a_misspelt_paramwise_key_is_named():
    cfg = dict(optimizer=dict(type='SGD', lr=0.1))
    with pytest.raises(ValueError, match='knows no flat_decay_mul in paramwise_cfg'):
        LayerDecayOptimWrapperConstructor(cfg, dict(flat_decay_mul=0.0))


def test_a_misspelt_argument_is_named(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_objects(tmp_path)
    cfg = load_config(demo['classify'], {'model.backbone.pach_size': 8})
    with pytest.raises(TypeError, match="unexpected keyword argument 'pach_size'"):
        build_runner(cfg)


def test_keys_of_stock_configs_pass():
    """Of all that mmpretrain and mmseg ship, only a key that is misspelt there is refused."""
    refused = set()
    for package in (mmpretrain, mmseg):
        configs = list((Path(package.__file__).parent / '.mim' / 'configs').rglob('*.py'))
        assert len(configs) > 100
        for path in configs:
            keys = re.findall(r'^([A-Za-z]\w*)\s*=', path.read_text(), re.MULTILINE)
            try:
                check_keys(keys, str(path))
            except ValueError:
                refused.add(path.name)
    # It overrides `models`, so its sampler never arrives.
    assert refused <= {'bisenetv2_fcn_4xb4-ohem-160k_cityscapes-1024x1024.py'}


def test_names_of_ones_own_pass(demo):
    load_config(demo['classify'], {'my_batch': 3, 'backbone2.x': 1, 'train_cfg_of_mine': 2})


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has an accelerator')
def test_amp_without_an_accelerator(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_objects(tmp_path)
    cfg = load_config(demo['classify'], {'optim_wrapper.type': 'AmpOptimWrapper'})
    with pytest.raises(RuntimeError, match='mixed precision needs an accelerator'):
        build_runner(cfg)
    cfg = load_config(demo['classify'], {'test_cfg.fp16': True})
    with pytest.raises(RuntimeError, match='mixed precision needs an accelerator'):
        build_runner(cfg, 'some.pth')


def train(cfg_path, extra=()):
    build_runner(load_config(cfg_path, {**NO_WORKERS, **dict(extra)}, 'out')).train()


def test_an_unreadable_image_is_named(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_objects(tmp_path)
    bad = tmp_path / 'data' / 'digit_scenes' / 'objects' / 'train' / '0' / '7.png'
    bad.write_bytes(b'not an image')
    with pytest.raises(ValueError, match=r'objects/train/0/7.png cannot be decoded'):
        train(demo['classify'])


def test_a_mask_of_another_size_is_named(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path, np.zeros((72, 60), np.uint8))
    with pytest.raises(ValueError, match=r'\d+.png: the mask has shape \(72, 60\)'):
        train(demo['segment'], {'model.backbone.init_cfg': None}.items())


def test_a_class_out_of_range_is_named(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((72, 72), np.uint8)
    mask[3, 4] = 11
    write_scenes(tmp_path, mask)
    with pytest.raises(ValueError, match=r'\d+.png: class 11 is outside the 11 classes'):
        train(demo['segment'], {'model.backbone.init_cfg': None}.items())


def test_a_label_out_of_range_is_named():
    check = CheckAnnotations(num_classes=10)
    with pytest.raises(ValueError, match=r'a.png: label 10 is outside the 10 classes'):
        check(dict(gt_label=10, img_path='a.png'))
    inference = dict(img_path='a.png')
    assert check(inference) is inference
    ignored = np.full((2, 2), 255, np.uint8)
    fine = dict(gt_seg_map=ignored, ori_shape=(2, 2), seg_map_path='m.png', img_path='a.png')
    assert check(fine) is fine


def test_a_pretrained_backbone_that_does_not_fit_stops_the_run(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scenes(tmp_path, np.zeros((72, 72), np.uint8))
    file = tmp_path / 'other.pth'
    torch.save({f'backbone.{k}': v for k, v in Golden('vit').state_dict.items()}, file)
    with pytest.raises(ValueError, match='does not fit LocAtViT'):
        train(demo['segment'], {'model.backbone.init_cfg.checkpoint': str(file)}.items())
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*nowhere.pth'):
        train(demo['segment'], {'model.backbone.init_cfg.checkpoint': 'nowhere.pth'}.items())


def test_a_checkpoint_to_start_from_is_read_safely(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_objects(tmp_path)
    executed, file = tmp_path / 'executed', tmp_path / 'start.pth'

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(executed),)

    torch.save({'state_dict': {}, 'x': Hostile()}, file)
    cfg = load_config(demo['classify'], {'load_from': str(file)})
    with pytest.raises(ValueError, match='nothing else is executed'):
        build_runner(cfg)
    assert not executed.exists()
    torch.save({'layer1.conv.weight': torch.ones(1)}, file)
    with pytest.raises(ValueError, match='unexpected: layer1.conv.weight'):
        build_runner(cfg)
    cfg.load_from = 'https://somewhere/epoch_300.pth'
    with pytest.raises(ValueError, match='is an address: download'):
        build_runner(cfg)


def test_auto_scale_lr_under_one_cycle_is_refused(demo):
    train_tool = runpy.run_path(str(ROOT / 'tools' / 'train.py'))
    cfg = load_config(demo['segment'], {'auto_scale_lr.base_batch_size': 16})
    args = argparse.Namespace(
        launcher='none',
        no_validate=False,
        amp=False,
        resume=None,
        auto_scale_lr=True,
        no_pin_memory=False,
        no_persistent_workers=False,
    )
    with pytest.raises(ValueError, match='no effect under OneCycleLR'):
        train_tool['merge_args'](cfg, args)


@pytest.mark.parametrize(
    'installed, message',
    [
        ({'onedl-mmengine', 'mmengine'}, 'onedl-mmengine and mmengine are both installed'),
        (set(), r'locat_mm needs mmengine. .*locat_mm\[onedl\]'),
        ({'mmengine'}, 'locat_mm needs mmcv'),
    ],
    ids=['both', 'none', 'half'],
)
def test_openmmlab_must_be_there_once(installed, message, monkeypatch):
    monkeypatch.setattr('locat_mm.distribution._is_installed', lambda name: name in installed)
    with pytest.raises(ImportError, match=message):
        check_openmmlab()


@pytest.mark.parametrize(
    'packages',
    [
        {'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'onedl-mmpretrain'},
        {'mmengine', 'mmcv', 'mmsegmentation', 'mmpretrain'},
    ],
    ids=['onedl', 'upstream'],
)
def test_either_distribution_will_do(packages, monkeypatch):
    monkeypatch.setattr('locat_mm.distribution._is_installed', packages.__contains__)
    check_openmmlab()


def test_sync_bn_on_the_cpu_names_the_way_out():
    cfg = load_config(str(ROOT / 'configs' / 'vit' / 'vit_tiny_upernet_ade20k.py'))
    cfg.launcher = 'pytorch'
    with pytest.raises(RuntimeError, match='SyncBN needs accelerators') as caught:
        _use_gloo(cfg)
    options = str(caught.value).partition('--cfg-options ')[2].split()
    assert len(options) == 3
    # With what the message says, no SyncBN is left.
    cfg.merge_from_dict(dict(option.split('=') for option in options))
    assert 'SyncBN' not in str(cfg.model)


def test_sync_bn_is_found_in_lists():
    heads = [dict(type='FCNHead'), dict(type='FCNHead', norm_cfg=dict(type='SyncBN'))]
    parts = walk(dict(auxiliary_head=heads), 'model')
    found = [key for key, part in parts if part.get('type') == 'SyncBN']
    assert found == ['model.auxiliary_head.1.norm_cfg']


def test_what_a_flexible_runner_would_ignore_is_refused():
    cfg = load_config(str(ROOT / 'configs' / 'locat' / 'locatvit_base_imagenet_fsdp.py'))
    cfg.sync_bn = 'torch'
    with pytest.raises(ValueError, match='FlexibleRunner ignores sync_bn at top level'):
        _check_flexible(cfg)


def test_runs_that_begin_in_the_same_second_share_nothing(demo, tmp_path, monkeypatch):
    """mmengine would give the second one the log file, hub and scope of the first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('time.time', lambda: 1.7e9)
    runners = []
    for task in ('classify', 'segment'):
        cfg = load_config(demo[task], {'model.backbone.init_cfg': None}, tmp_path / task)
        cfg.filename = 'same.py'
        for part in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
            cfg.pop(part)
        for part in ('val_dataloader', 'val_cfg', 'val_evaluator'):
            cfg.pop(part)
        monkeypatch.setattr('locat_mm.engine.launch._check_data', lambda *args: None)
        runners.append(build_runner(cfg))
    first, second = runners
    assert first.message_hub is not second.message_hub and first.logger is not second.logger
    assert type(first.visualizer).__name__ == 'UniversalVisualizer'
    assert type(second.visualizer).__name__ == 'SegLocalVisualizer'
