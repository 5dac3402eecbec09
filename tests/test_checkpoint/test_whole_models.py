"""Whole models through mmengine's Runner and our tools: official names, strictness."""

import copy
import json
import runpy
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from locat_mm import load_official
from locat_mm.checkpoint import check_fit, read_state_dict
from locat_mm.engine import build_runner
from tests.support.checkpoints import assert_logits, build, classifier_cfg, segmentor_cfg
from tests.support.golden import Golden

ROOT = Path(__file__).parents[2]
REPO = 'sinahmr/locatvit_tiny'


@pytest.fixture
def official(golden, hub) -> str:
    hub.add(REPO, golden.state_dict)
    return f'hf-hub:{REPO}'


def config(tmp_path, model, **extra) -> Config:
    extra.setdefault('default_scope', 'mmpretrain')
    return Config(dict(model=model, work_dir=str(tmp_path / 'out'), **extra))


def write_images(folder, model) -> list[int]:
    """Images with the labels that a model gives them."""
    (folder / 'images').mkdir(parents=True)
    images = torch.randint(0, 256, (30, 32, 32, 3), dtype=torch.uint8)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), image.numpy())
    normalised = (images.permute(0, 3, 1, 2).float() - 127.5) / 127.5
    labels = model(normalised).argmax(dim=1).tolist()
    lines = [f'{i}.png {label}' for i, label in enumerate(labels)]
    (folder / 'labels.txt').write_text('\n'.join(lines))
    return labels


def data(folder) -> dict:
    loader = dict(
        batch_size=10,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='CustomDataset',
            data_root=str(folder),
            data_prefix='images',
            ann_file='labels.txt',
            classes=list('0123456'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        ),
    )
    return dict(
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=dict(type='Accuracy'),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
    )


@pytest.mark.parametrize('tta', [False, True], ids=['plain', 'tta'])
def test_the_tool_evaluates_the_authors_weights(tta, golden, official, tmp_path, monkeypatch):
    reference = load_official(golden.classifier(), golden.state_dict)
    labels = write_images(tmp_path / 'data', reference)
    assert len(set(labels)) > 1
    cfg = config(tmp_path, classifier_cfg(golden), **data(tmp_path / 'data'))
    if tta:  # flips and their like give the same here: one view
        *pipeline, pack = cfg.test_dataloader.dataset.pipeline
        views = [[dict(type='RandomFlip', prob=0.0)], [pack]]
        cfg.tta_pipeline = [*pipeline, dict(type='TestTimeAug', transforms=views)]
    file, out = tmp_path / 'config.py', tmp_path / 'metrics.json'
    cfg.dump(file)
    argv = ['test.py', file, official, '--out', out, '--out-item', 'metrics']
    monkeypatch.setattr(sys, 'argv', [*map(str, argv), *(['--tta'] if tta else [])])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(ROOT / 'tools' / 'test.py'), run_name='__main__')
    assert json.loads(out.read_text())['accuracy/top1'] == 100.0


@pytest.mark.parametrize('start', ['load_from', 'init_cfg'])
def test_training_starts_from_the_authors_weights(start, golden, official, tmp_path):
    write_images(tmp_path / 'data', golden.classifier())
    cfg = config(tmp_path, classifier_cfg(golden), **data(tmp_path / 'data'))
    # What is initialised at random must not come after.
    cfg.model.head.init_cfg = dict(type='Constant', layer='Linear', val=3.0)
    if start == 'load_from':
        cfg.load_from = official
    else:
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=official)
    runner = build_runner(cfg)
    runner.train()  # one step at learning rate 0
    assert_logits(runner.model, golden)


def test_resuming_is_strict_and_goes_before_init_cfg(golden, official, tmp_path):
    write_images(tmp_path / 'data', golden.classifier())
    cfg = config(tmp_path, classifier_cfg(golden), **data(tmp_path / 'data'))
    build_runner(copy.deepcopy(cfg)).train()
    saved = read_state_dict(tmp_path / 'out' / 'iter_1.pth')
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=official)
    cfg.resume, cfg.train_cfg.max_iters = True, 2
    runner = build_runner(copy.deepcopy(cfg))
    runner.train()
    assert runner.iter == 2
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, saved[key])
    cfg.model.backbone.gaug = False
    with pytest.raises(ValueError, match='iter_2.pth does not fit'):
        build_runner(cfg)


def test_the_flexible_runner_is_checked_before_it_builds_its_model(golden, official, tmp_path):
    flexible = dict(runner_type='FlexibleRunner', env_cfg=dict())
    with pytest.raises(ValueError, match='set gaug=True'):
        build_runner(config(tmp_path, classifier_cfg(golden, gaug=False), **flexible), official)
    write_images(tmp_path / 'data', load_official(golden.classifier(), golden.state_dict))
    cfg = config(
        tmp_path, classifier_cfg(golden), load_from=official, **data(tmp_path / 'data'), **flexible
    )
    assert build_runner(cfg, official).test()['accuracy/top1'] == 100.0


def test_a_segmentor_starts_from_the_backbone_and_is_not_tested_with_it(golden, official, tmp_path):
    model = segmentor_cfg(golden)
    with pytest.raises(ValueError, match='missing: decode_head'):
        build_runner(config(tmp_path, model, default_scope='mmseg'), official)
    segmentor = build(model)
    fitted = check_fit(segmentor, golden.state_dict, 'it', strict=True, whole=False)
    assert set(fitted.state) == {k for k in segmentor.state_dict() if k.startswith('backbone.')}
    own = {**segmentor.state_dict(), **fitted.state}
    assert not check_fit(segmentor, own, 'it').problems


def test_another_number_of_classes_is_named(golden, official, tmp_path):
    cfg = classifier_cfg(golden)
    cfg['head']['num_classes'] = 5
    with pytest.raises(ValueError) as caught:
        build_runner(config(tmp_path, cfg), official)
    message = str(caught.value)
    assert 'head.fc.weight (7, 24) instead of (5, 24)' in message
    assert 'num_classes: 7 in the file, 5 in the model' in message
    file = tmp_path / 'segmentor.pth'
    torch.save(build(segmentor_cfg(golden, num_classes=6)).state_dict(), file)
    with pytest.raises(ValueError, match='num_classes: 6 in the file, 4 in the model'):
        build_runner(config(tmp_path, segmentor_cfg(golden), default_scope='mmseg'), str(file))


def test_weights_that_the_model_would_not_use_are_refused_in_testing(golden, tmp_path):
    file = tmp_path / 'gap.pth'
    torch.save(Golden('vit_gap').state_dict, file)
    cfg = classifier_cfg(Golden('vit_gap'))
    cfg['neck'] = None
    cfg['backbone'].update(out_type='avg_featmap', final_norm=False)
    with pytest.raises(ValueError, match='unexpected: backbone.fc_norm.weight'):
        build_runner(config(tmp_path, cfg), str(file))


@pytest.mark.parametrize(
    'init, extra, message',
    [
        (dict(prefix='model.'), {}, r"takes no prefix \('model.'\)"),
        ({}, dict(load_from='other.pth'), 'both name a start, hf-hub:.* and other.pth'),
    ],
)
def test_a_whole_init_cfg_that_cannot_be_followed(init, extra, message, golden, official, tmp_path):
    model = classifier_cfg(golden)
    model['init_cfg'] = dict(type='Pretrained', checkpoint=official, **init)
    with pytest.raises(ValueError, match=message):
        build_runner(config(tmp_path, model, **extra))


def test_the_hook_serves_other_tools_by_name(golden, official, tmp_path):
    hooks = [dict(type='locat_mm.CheckpointFitHook')]
    cfg = config(tmp_path, classifier_cfg(golden), custom_hooks=hooks, load_from=official)
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    assert_logits(runner.model, golden)
    cfg.model.backbone.gaug = False
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match='set gaug=True'):
        runner.load_or_resume()
