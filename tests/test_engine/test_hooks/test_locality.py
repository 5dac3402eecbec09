"""LocalityHook in mmengine's loops, against numbers computed apart."""

import copy
import json
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed

import locat_mm
from locat_mm.engine import LocalityHook
from tests.support.backbones import build

IMAGES = torch.randn(4, 3, 24, 40, generator=torch.Generator().manual_seed(0))
ITERATIONS = 6


class Model(BaseModel):
    """A backbone and the least of a loss; one batch is all of the data."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.backbone(torch.stack(list(inputs)))[0].square().mean())


class Spy(Hook):
    """Notes which iterations the blocks are listened to in, once their hooks are in place."""

    priority = 'LOWEST'

    def __init__(self):
        self.heard = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        modules = runner.model.backbone.blocks.modules()
        if any(module._forward_hooks for module in modules):
            self.heard.append(runner.iter + 1)


def train(tmp_path, backbone, by_epoch=True, hook=None):
    """The model, what the visualizer's backend wrote, and what the Spy noted."""
    spy = Spy()
    train_cfg = dict(by_epoch=True, max_epochs=ITERATIONS)
    if not by_epoch:
        train_cfg = dict(by_epoch=False, max_iters=ITERATIONS)
    runner = Runner(
        Model(backbone),
        str(tmp_path),
        train_dataloader=dict(
            dataset=[dict(inputs=image) for image in IMAGES],
            batch_size=4,
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True),
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[hook or dict(type='locat_mm.LocalityHook', interval=2), spy]
        + [dict(type='EMAHook')],
        visualizer=dict(
            type='Visualizer',
            vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        ),
        default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=100)),
        experiment_name=tmp_path.name,  # or a visualizer of the same second would be used again
    )
    runner.train()
    (file,) = tmp_path.rglob('scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [line for line in lines if any(key.startswith('locality/') for key in line)]
    assert read_tensorboard(file.parent) == [pytest.approx(line, rel=1e-6) for line in lines]
    (log,) = tmp_path.rglob('*.log')
    assert log.read_text().count('locality of the layers at iteration') == len(lines)
    assert not any(m._forward_hooks for m in backbone.blocks.modules())
    return runner.model, lines, spy.heard


def read_tensorboard(folder):
    """What the hook's scalars are in TensorBoard's own file, in the form of a local log."""
    events = EventAccumulator(str(folder)).Reload()
    lines = defaultdict(dict)
    for name in events.Tags()['scalars']:
        if name.startswith('locality/'):
            for event in events.Scalars(name):
                lines[event.step] |= {name: event.value, 'step': event.step}
    return list(lines.values())


def expected(backbone, num_class, num_prefix):
    """Means in float64, from the inputs and outputs of the blocks."""
    twin, means = copy.deepcopy(backbone).double().eval(), {}
    outputs = []
    for block in twin.blocks:
        block.attn.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
        block.register_forward_hook(lambda _, args, out: outputs.append(out))
    with torch.no_grad():
        twin(IMAGES.double())
    for i, block in enumerate(twin.blocks):
        entering, leaving = (x.numpy() for x in outputs[2 * i : 2 * i + 2])
        unit = leaving / np.linalg.norm(leaving, axis=-1, keepdims=True)
        similarity = unit[:, num_prefix:] @ unit[:, :num_class].swapaxes(1, 2)
        means[f'locality/layer{i:02d}/similarity'] = similarity.mean()
        if not hasattr(block.attn, 'gaug'):
            continue
        parts = {k: v.numpy() for k, v in block.attn.state_dict().items()}
        width = entering.shape[-1]
        q = entering[:, num_prefix:] @ parts['qkv.weight'][:width].T + parts['qkv.bias'][:width]
        q = q.reshape(*q.shape[:2], 3, -1)
        logits = q @ parts['gaug.log_var.weight'].T + parts['gaug.log_var.bias']
        means[f'locality/layer{i:02d}/sigma2'] = (25 / (1 + 24 * np.exp(-logits))).mean()
        strength = q @ parts['gaug.log_alpha.weight'].T + parts['gaug.log_alpha.bias']
        alpha = np.log1p(np.exp(strength)) * parts.get('gaug.gain', 1.0)
        means[f'locality/layer{i:02d}/alpha'] = alpha.mean()
        if 'gaug.correlation.weight' in parts:
            tilt = q @ parts['gaug.correlation.weight'].T + parts['gaug.correlation.bias']
            means[f'locality/layer{i:02d}/correlation'] = np.abs(0.95 * np.tanh(tilt)).mean()
    return means


@pytest.mark.parametrize('family, by_epoch', [('vit', True), ('jumbo', False)])
def test_logs_what_layers_do(tmp_path, family, by_epoch):
    model, lines, heard = train(tmp_path, build(family), by_epoch)
    num_class = 3 if family == 'jumbo' else 1
    assert [line.pop('step') for line in lines] == heard == [2, 4, 6]
    for line in lines:  # nothing learns
        assert line == pytest.approx(expected(model.backbone, num_class, num_class), rel=1e-4)
        assert len(line) == 6


def test_rotated_kernels(tmp_path):
    hook = LocalityHook(interval=6)
    model, (line,), _ = train(tmp_path, build('vit', kernel='rotated'), hook=hook)
    assert line.pop('step') == 6 and 'locality/layer01/correlation' in line
    assert line == pytest.approx(expected(model.backbone, 1, 1), rel=1e-4)


@pytest.mark.parametrize('gaug', [True, False], ids=['attached', 'plain'])
def test_hosts(tmp_path, gaug):
    host = build('regvit', gaug=False)
    if gaug:
        locat_mm.attach(host)
        for block in host.blocks:
            block.attn.gaug.gain.data.fill_(0.7)
    hook = HOOKS.build(dict(type='LocalityHook', interval=4))  # the bare name
    model, (line,), heard = train(tmp_path, host, hook=hook)
    assert line.pop('step') == 4 and heard == [4]
    assert line == pytest.approx(expected(model.backbone, 1, 5), rel=1e-4, abs=1e-6)


def test_wrapped_and_run_several_times(tmp_path):
    """Under DistributedDataParallel; several forwards, as in multi-crop training, are averaged."""
    distributed.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = MMDistributedDataParallel(Model(build('vit')), device_ids=None)
        logged, messages = [], []
        runner = SimpleNamespace(
            model=model,
            iter=0,
            visualizer=SimpleNamespace(add_scalars=lambda x, step: logged.append((step, x))),
            logger=SimpleNamespace(info=messages.append),
        )
        hook = LocalityHook(interval=1)
        hook.before_train(runner)
        for batches in ([IMAGES], [IMAGES[:2], IMAGES[2:]]):
            hook.before_train_iter(runner, 0)
            for batch in batches:
                model(batch)
            hook.after_train_iter(runner, 0)
            runner.iter += 1
    finally:
        distributed.destroy_process_group()
    (first, whole), (second, halves) = logged
    assert (first, second) == (1, 2) and halves == pytest.approx(whole, rel=1e-5)
    assert whole == pytest.approx(expected(model.module.backbone, 1, 1), rel=1e-4)
    assert messages[0].startswith('locality of the layers at iteration 1: sigma2 ')


def test_errors():
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        LocalityHook(interval=0)
    runner = SimpleNamespace(model=Model(build('swin', gaug=False)))
    with pytest.raises(ValueError, match='LocAtSwin has neither GAug nor a class token'):
        LocalityHook().before_train(runner)
