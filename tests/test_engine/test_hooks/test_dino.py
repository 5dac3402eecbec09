"""DINO in mmengine's Runner: frozen layer, clipping, schedules, resuming, loading the teacher."""

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from locat_mm.checkpoint import find_resumable
from locat_mm.engine import DINOHook, build_runner
from locat_mm.registry import MODELS
from tests.support.shipped import load

NAME = 'demo/dino/locatvit_dino.py'
EPOCHS, PER_EPOCH, BATCH = 3, 4, 4
TOTAL = EPOCHS * PER_EPOCH
MAX_NORM = 0.02
SETTINGS = {
    'train_cfg.max_epochs': EPOCHS,
    'train_dataloader.batch_size': BATCH,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'model.backbone.arch': dict(embed_dim=16, depth=2, num_heads=2),
    'model.neck.num_heads': 2,
    'model.head.in_channels': 16,
    'model.head.out_channels': 32,
    'model.head.hidden_channels': 16,
    'model.head.bottleneck_channels': 8,
    'model.loss.warmup_epochs': 2,
    'custom_hooks.0.max_norm': MAX_NORM,
    'default_hooks.checkpoint.max_keep_ckpts': EPOCHS,
    'default_hooks.logger.interval': 1,
    # k-NN as validation is tests/test_evaluation's.
    **dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator')),
}


class Recorder(Hook):
    """Notes each update's schedules and what becomes of its gradients."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.schedules, self.raw, self.clipped = [], [], []
        self.start = None

    def before_train(self, runner):
        """``priority`` is that of the first half; the second stands behind DINOHook's."""
        self.start = {name: p.clone() for name, p in runner.model.state_dict().items()}
        self.names = {id(p): name for name, p in runner.model.named_parameters()}
        optimizer = runner.optim_wrapper.optimizer
        optimizer.register_step_pre_hook(lambda *_: self.raw.append(self.gradients(optimizer)))

    def before_train_epoch(self, runner):
        if runner.epoch == 0:
            optimizer = runner.optim_wrapper.optimizer
            optimizer.register_step_pre_hook(
                lambda *_: self.clipped.append(self.gradients(optimizer))
            )

    def gradients(self, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group['params']]
        return {self.names[id(p)]: p.grad.clone() for p in parameters if p.grad is not None}

    def before_train_iter(self, runner, **_):
        if runner.iter == self.stop_after:
            raise KeyboardInterrupt
        self.schedules.append(
            {
                self.names[id(group['params'][0])]: (group['lr'], group['weight_decay'])
                for group in runner.optim_wrapper.optimizer.param_groups
            }
        )


def run(work_dir, resume=False, stop_after=None):
    cfg = load(NAME, SETTINGS, str(work_dir))
    cfg.resume = resume
    runner = build_runner(cfg)
    recorder = Recorder(stop_after)
    runner.register_hook(recorder, priority='VERY_HIGH')
    runner.train()
    return runner, recorder


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with a few images, made the working directory."""
    folder = tmp_path_factory.mktemp('dino')
    rng = np.random.default_rng(0)
    for index in range(BATCH * PER_EPOCH):
        path = folder / f'data/digit_scenes/objects/train/{index % 2}/{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (6, 6, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (48, 48)))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope='module')
def whole_run(place):
    return place / 'whole', *run(place / 'whole')


def weights(path):
    return torch.load(path, weights_only=False)


def test_the_last_layer_waits_an_epoch(whole_run):
    folder, _, recorder = whole_run
    key = 'head.last_layer.weight'
    first, second = (weights(folder / f'epoch_{epoch}.pth') for epoch in (1, 2))
    assert torch.equal(first['state_dict'][key], recorder.start[key])
    assert not torch.equal(second['state_dict'][key], recorder.start[key])
    # No step, so no state: all but one parameter have some.
    trained = len(first['optimizer']['param_groups'])
    assert len(first['optimizer']['state']) == trained - 1
    assert len(second['optimizer']['state']) == trained
    assert all(key in raw for raw in recorder.raw)
    held = [key not in clipped for clipped in recorder.clipped]
    assert held == [True] * PER_EPOCH + [False] * (TOTAL - PER_EPOCH)


def test_gradients_are_clipped_one_by_one(whole_run):
    recorder = whole_run[2]
    changed = 0
    for raw, clipped in zip(recorder.raw, recorder.clipped, strict=True):
        for name, gradient in clipped.items():
            norm = raw[name].double().square().sum().sqrt().item()
            expected = raw[name] * min(1.0, MAX_NORM / (norm + 1e-6))
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-8)
            changed += norm > MAX_NORM
    assert 0 < changed < sum(len(clipped) for clipped in recorder.clipped)


def test_schedules(whole_run):
    """Linear up over the first epoch, a cosine down; decay by a cosine to tenfold, 0 stays 0."""
    recorder = whole_run[2]
    assert len(recorder.schedules) == TOTAL
    for step, found in enumerate(recorder.schedules):
        decay = 0.4 + (0.04 - 0.4) * (1 + math.cos(math.pi * step / TOTAL)) / 2
        if step < PER_EPOCH:
            rate = 1e-3 * (1e-4 + (1 - 1e-4) * step / (PER_EPOCH - 1))
        else:
            done = (step - PER_EPOCH) / (TOTAL - PER_EPOCH)
            rate = 1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * done)) / 2
        for name, (lr, weight_decay) in found.items():
            assert lr == pytest.approx(rate, rel=1e-6), (step, name)
            free = name.endswith('.bias') or 'norm' in name
            assert weight_decay == (0 if free else pytest.approx(decay, rel=1e-6)), (step, name)
        assert found['backbone.blocks.0.attn.gaug.log_var.weight'][1] > 0
        assert not any(name.startswith('teacher.') for name in found)


def test_a_resumed_run_is_the_same_run(whole_run, place):
    """Student, teacher, centre and optimizer, bit for bit."""
    with pytest.raises(KeyboardInterrupt):
        run(place / 'stopped', stop_after=PER_EPOCH + 2)
    run(place / 'stopped', resume=True)
    expected = weights(find_resumable(whole_run[0]))
    found = weights(find_resumable(place / 'stopped'))
    assert {'loss_module.center', 'teacher.steps'} <= found['state_dict'].keys()
    assert found['state_dict']['teacher.steps'] == TOTAL
    for key, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][key], value), key
    for index, state in expected['optimizer']['state'].items():
        for key, value in state.items():
            assert torch.equal(found['optimizer']['state'][index][key], value), (index, key)
    assert found['param_schedulers'] == expected['param_schedulers']


def test_the_teacher_loads_for_evaluation(whole_run):
    folder, runner, _ = whole_run
    assert 'train/spread' in runner.message_hub.log_scalars

    def backbone(prefix):
        checkpoint = str(folder / f'epoch_{EPOCHS}.pth')
        init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix=prefix)
        model = MODELS.build({**runner.cfg.model.backbone, 'init_cfg': init_cfg})
        model.init_weights()
        return model.eval()

    image = torch.randn(2, 3, 48, 48)
    teacher = backbone('teacher.module.backbone.')
    features = MODELS.build(runner.cfg.model.neck)(teacher(image))
    assert torch.equal(features[0], runner.model.eval().extract_feat(image)[0])
    student = backbone('backbone.')
    assert not torch.equal(student(image)[0], teacher(image)[0])
    with pytest.raises(ValueError, match="no key that starts with 'teacher.backbone.'"):
        backbone('teacher.backbone.')


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(max_norm=0.0), 'max_norm must be positive, got 0.0'),
        (dict(frozen_epochs=-1), 'frozen_epochs must not be negative, got -1'),
    ],
)
def test_mistakes_in_the_hook_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DINOHook(**kwargs)


def test_the_hook_refuses_what_it_cannot_do(whole_run, place):
    by_iter = dict(type='IterBasedTrainLoop', max_iters=2, _delete_=True)
    cfg = load(NAME, {**SETTINGS, 'param_scheduler': None, 'train_cfg': by_iter}, 'by_iter')
    with pytest.raises(ValueError, match='by epochs, got IterBasedTrainLoop'):
        build_runner(cfg).train()
    runner = whole_run[1]
    optimizer = runner.optim_wrapper.optimizer
    optimizer._step_supports_amp_scaling = True
    with pytest.raises(ValueError, match='set fused=False'):
        DINOHook().before_train(runner)
    del optimizer._step_supports_amp_scaling
    head, runner.model.head = runner.model.head, None
    with pytest.raises(TypeError, match='needs a head with last_layer.*: DINO has none'):
        DINOHook().before_train(runner)
    runner.model.head = head
