"""Losses, gradients and weights that are not finite stop a run, which says where they began."""

import os
import re
from functools import partial

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from locat_mm.config import load_config
from locat_mm.engine import NonFiniteHook, build_runner
from locat_mm.engine.hooks.non_finite_source import bad_state, find_source
from tests.support import ROOT, demo_config
from tests.support.plants import PlantNaN

SETTINGS = {
    'locatvit_classify': {  # 4 iterations an epoch
        'train_cfg.max_epochs': 3,
        'train_cfg.val_interval': 9,
        'train_dataloader.batch_size': 32,
        'model.backbone.drop_path_rate': 0.3,
    },
    'vit_segment': {
        'train_cfg.max_iters': 12,
        'train_cfg.val_interval': 99,
        'train_dataloader.batch_size': 2,
        'model.backbone.init_cfg': None,
        'model.backbone.frozen': False,
        'param_scheduler.0.total_steps': 12,
        'default_hooks.checkpoint.interval': 4,
    },
}
CLASSIFY, SEGMENT = SETTINGS
LAST_GOOD = {CLASSIFY: 'epoch_1.pth', SEGMENT: 'iter_4.pth'}
NO_WORKERS = {
    f'{split}_dataloader.{key}': value
    for split in ('train', 'val')
    for key, value in dict(num_workers=0, persistent_workers=False).items()
}


class Watch(Hook):
    """Keeps the weights that every iteration began with, and counts those that ended."""

    priority = 'VERY_HIGH'

    def before_train(self, runner):
        self.weights, self.done = [], 0

    def before_train_iter(self, runner, **kwargs):
        self.weights.append({k: v.clone() for k, v in runner.model.state_dict().items()})

    def after_train_iter(self, runner, **kwargs):
        self.done = runner.iter + 1


def build(name, work_dir, plant=None, hook=None, **changes):
    overrides = {**SETTINGS[name], **NO_WORKERS, **changes}
    cfg = load_config(str(demo_config(name)), overrides, str(work_dir))
    cfg.default_hooks.non_finite.update(hook or {})
    runner = build_runner(cfg)
    runner.register_hook(watch := Watch())
    if plant is not None:
        runner.register_hook(PlantNaN(*plant))
    return runner, watch


def load(path):
    return torch.load(path, weights_only=False)['state_dict']


def assert_equal(state, expected):
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0, msg=name)


NAMED = {
    'image': r'the input, image 1 of the batch \(.*\.png\)\. ',
    'output backbone.blocks.1.mlp.fc1': (
        r'the output of backbone\.blocks\.1\.mlp\.fc1 \(Linear\)\. '
    ),
    'gradient backbone.blocks.1.mlp.fc1.bias': (
        r'a gradient under a finite loss, at no output of a module, .*: '
        r'backbone\.blocks\.1\.mlp\.fc1\.bias\. '
    ),
}
IMAGE, OUTPUT, GRADIENT = NAMED


@pytest.mark.parametrize(
    'name, where',
    [(CLASSIFY, IMAGE), (CLASSIFY, OUTPUT), (SEGMENT, OUTPUT), (SEGMENT, GRADIENT)],
    ids=lambda value: value.partition(' ')[0],
)
def test_the_run_stops_and_names_what_went_bad(name, where, workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    runner, watch = build(name, tmp_path, (where, 5), dict(max_consecutive=2))
    with pytest.raises(FloatingPointError, match=NAMED[where]) as stopped:
        runner.train()
    assert 'iteration 7: ' in str(stopped.value)
    assert f'The last good checkpoint is {tmp_path / LAST_GOOD[name]} ' in str(stopped.value)
    assert_equal(runner.model.state_dict(), watch.weights[5])  # no step was taken
    with pytest.raises(AssertionError):
        assert_equal(runner.model.state_dict(), watch.weights[4])


class Net(BaseModel):
    """Two layers with an operation between them, and a loss."""

    def __init__(self, between=None, loss=None):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)
        for module in (self.first, self.second):
            nn.init.ones_(module.weight)
        self.between, self.loss = (
            between or (lambda x: x),
            loss or (lambda x: x.square().mean() * 8),
        )
        self.register_buffer('mask', torch.full((4,), float('-inf')))  # no mistake

    def forward(self, inputs, mode):
        return dict(loss=self.loss(self.second(self.between(self.first(inputs)))))


class Images(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.randn(4))


def build_small(work_dir, plant=None, hook=None, optim_wrapper=None):
    """As :func:`build`, of :class:`Net`, whose images have 4 numbers; 12 iterations."""
    model = Net()
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            dataset=Images(),
            sampler=dict(type='InfiniteSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=12),
        optim_wrapper=optim_wrapper or dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(
                type='locat_mm.SafeCheckpointHook', by_epoch=False, interval=4, max_keep_ckpts=3
            ),
            exact_resume=dict(type='locat_mm.ExactResumeHook'),
            non_finite=dict(type='locat_mm.NonFiniteHook', **(hook or {})),
        ),
        randomness=dict(seed=0),
        default_scope='mmengine',
        experiment_name=work_dir.name,
    )
    runner.register_hook(watch := Watch())
    if plant is not None:
        runner.register_hook(PlantNaN(*plant))
    return runner, watch


def test_bad_weights_stop_at_once(tmp_path):
    runner, _ = build_small(tmp_path, ('parameter second.weight', 5), dict(max_consecutive=9))
    with pytest.raises(FloatingPointError, match='iteration 6.* weights or .* second.weight. '):
        runner.train()


def test_two_bad_iterations_are_left_out(tmp_path):
    runner, watch = build_small(tmp_path, ('output first', 5, 6), dict(max_consecutive=3))
    runner.train()
    assert watch.done == 12
    for step in (5, 6):
        assert_equal(watch.weights[step + 1], watch.weights[step])
    with pytest.raises(AssertionError):
        assert_equal(watch.weights[8], watch.weights[7])
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'WARNING - iteration 6: loss is nan; gradients' in log
    assert 'skipped (2 in a row, 3 stop the run)' in log
    assert not any(v.isnan().any() for v in load(tmp_path / 'iter_12.pth').values())


def test_bad_weights_are_not_saved(tmp_path):
    runner, _ = build_small(tmp_path, ('after first.weight', 7, 7))
    with pytest.raises(FloatingPointError, match='iteration 8 is not saved.* first.w') as stopped:
        runner.train()
    assert f'The last good checkpoint is {tmp_path / "iter_4.pth"} ' in str(stopped.value)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_4.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_4.pth')


def test_a_bad_checkpoint_is_no_way_back(tmp_path):
    """The last one of a run without the hook, and a damaged one."""

    class Spoil(Hook):
        def before_train_iter(self, runner, **kwargs):
            if runner.iter == 4:
                good = load(tmp_path / 'iter_4.pth')
                for number, name in enumerate(('iter_2', 'iter_3', 'iter_4')):
                    state = {k: v * float('nan') for k, v in good.items()} if number else good
                    torch.save(dict(state_dict=state), tmp_path / f'{name}.pth')
                    os.utime(tmp_path / f'{name}.pth', (number, number))
                (tmp_path / 'iter_3.pth').write_bytes(b'nothing')

    runner, _ = build_small(tmp_path, ('parameter first.weight', 5))
    runner.register_hook(Spoil())
    with pytest.raises(FloatingPointError, match=f'checkpoint is {tmp_path / "iter_2.pth"} '):
        runner.train()


@pytest.mark.parametrize('is_fused', [False, True], ids=['plain', 'fused'])
def test_steps_that_mixed_precision_leaves_out_do_not_count(is_fused, tmp_path, monkeypatch):
    """mmengine's wrapper with a GradScaler that begins far too high, here on the CPU."""
    scaler = partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', scaler)
    wrapper = dict(
        type='AmpOptimWrapper',
        dtype='bfloat16',
        loss_scale=dict(init_scale=2.0**127, backoff_factor=0.5),
        optimizer=dict(type='AdamW', lr=0.1, fused=is_fused),
        clip_grad=dict(max_norm=1.0),
    )
    runner, watch = build_small(tmp_path, hook=dict(max_consecutive=2), optim_wrapper=wrapper)
    runner.train()
    assert watch.done == 12
    assert runner.optim_wrapper.loss_scaler.get_scale() <= 2.0**124  # left out thrice
    assert_equal(watch.weights[3], watch.weights[0])
    with pytest.raises(AssertionError):
        assert_equal(watch.weights[11], watch.weights[0])


@pytest.mark.parametrize('is_sharded', [False, True], ids=['whole', 'sharded'])
def test_all_processes_stop_together(is_sharded, workplace, tmp_path):
    """NaN in one process's image; both say whose it is, and leave."""
    bases = [str(demo_config(CLASSIFY))]
    if is_sharded:
        bases.append(str(ROOT / 'configs' / '_base_' / 'fsdp.py'))
    config = tmp_path / 'planted.py'
    config.write_text(
        f'_base_ = {bases}\n'
        "custom_imports = dict(imports=['tests.support.plants'])\n"
        "custom_hooks = [dict(type='PlantNaN', where='image', first=5, rank=1)]\n"
        'default_hooks = dict(non_finite=dict(max_consecutive=2, check_interval=4))\n'
    )
    log = workplace.run(
        *('train.py', config, '--work-dir', tmp_path / 'run'),
        *('--cfg-options', 'train_dataloader.batch_size=16'),
        fails=True,
        processes=2,
    )
    message = r'FloatingPointError: iteration 8: .*: the input, image 1 of .* \(process 1\)\. .*'
    assert len(re.findall(f'{message}epoch_1.pth ', log)) == 2, log[-4000:]


@pytest.mark.parametrize(
    'between, loss, expected',
    [
        (None, None, ''),
        ((lambda x: x.log()), None, 'what the forward pass of the model (Net) hands to second'),
        (None, (lambda x: x.mean() / 0), 'the loss (loss), of finite outputs of all modules'),
        (
            (lambda x: (x - x.detach()).abs().sqrt()),
            None,
            'a gradient under a finite loss, with respect to the output of first (Linear); '
            'finite yet at the output of second (Linear). Gradients of parameters: first.weight',
        ),
    ],
    ids=['nothing', 'between', 'loss', 'gradient'],
)
def test_what_the_search_finds(between, loss, expected):
    model = Net(between, loss)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert find_source(model, dict(inputs=-torch.ones(2, 4)), wrapper)[1] == expected
    assert_equal(model.state_dict(), before)


def test_arguments():
    for name in ('max_consecutive', 'check_interval'):
        with pytest.raises(ValueError, match=f'{name} must be positive, got 0'):
            NonFiniteHook(**{name: 0})


def test_a_buffer_may_hold_infinity():
    """As a quantization's observer does; NaN it may not."""
    model = nn.Linear(2, 2)
    model.register_buffer('lowest', torch.tensor([torch.inf, 1.0]))
    assert bad_state(model) == []
    model.lowest[1] = torch.nan
    assert bad_state(model) == ['lowest']
    model.weight.data[0, 0] = torch.inf
    assert bad_state(model) == ['weight', 'lowest']
