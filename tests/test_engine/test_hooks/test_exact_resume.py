"""A run that is stopped anywhere and resumed is, bit for bit, the run that never stopped."""

import errno
import multiprocessing
import os
import signal
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook

from locat_mm.checkpoint import find_resumable
from locat_mm.config import load_config
from locat_mm.engine import build_runner
from locat_mm.engine.hooks import exact_resume
from locat_mm.engine.hooks.safe_checkpoint import SafeCheckpointHook
from tests.support import demo_config

RANDOM = [dict(type='RandomFlip', prob=0.5), dict(type='ColorJitter', brightness=0.4)]
SETTINGS = {
    'locatvit_classify': {
        'train_cfg.max_epochs': 3,
        'train_dataloader.batch_size': 32,  # 4 iterations an epoch
        'train_dataloader.num_workers': 2,
        'model.backbone.arch.depth': 2,
        'model.backbone.drop_path_rate': 0.3,
        'model.train_cfg': dict(augments=dict(type='Mixup', alpha=0.8)),
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep_ckpts': 2,
    },
    'vit_segment': {
        'train_cfg.max_iters': 12,
        'train_cfg.val_interval': 5,
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 2,
        'model.backbone.init_cfg': None,
        'model.backbone.frozen': False,
        'model.backbone.arch.depth': 2,
        'model.backbone.drop_path_rate': 0.3,
        'param_scheduler.0.total_steps': 12,
        'default_hooks.checkpoint.interval': 5,
    },
}


class Stop(Hook):
    """Ends training after an iteration, as a crash or as a SIGTERM would."""

    priority = 'LOWEST'

    def __init__(self, after, by):
        self.after, self.by = after, by

    def before_train_iter(self, runner, **kwargs):
        if runner.iter == self.after:
            if self.by == 'crash':
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)


class StopInValidation(Hook):
    """Ends a run in the validation after so many iterations; notes all validations."""

    def __init__(self, after=None):
        self.after, self.validated = after, []

    def before_val(self, runner):
        self.validated.append(runner.iter)
        if runner.iter == self.after:
            raise KeyboardInterrupt


def train(name, work_dir, resume=False, stop=None, hook=None, **changes):
    """Train a demo config; returns its last checkpoint's path."""
    cfg = load_config(str(demo_config(name)), {**SETTINGS[name], **changes}, str(work_dir))
    for transform in reversed(RANDOM if 'classify' in name else RANDOM[:1]):
        cfg.train_dataloader.dataset.pipeline.insert(1, dict(transform))
    cfg.resume = resume
    # Laying out the config, which is in every checkpoint, would cost more than the training.
    object.__setattr__(cfg, '_format_python_code', False)
    runner = build_runner(cfg)
    if stop is not None:
        runner.register_hook(Stop(*stop))
    if hook is not None:
        runner.register_hook(hook)
    try:
        runner.train()
    finally:
        # PyTorch waits 5 s for each worker that has fetched ahead.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for worker in multiprocessing.active_children():
            worker.kill()
    return find_resumable(work_dir)


def assert_equal(path, other):
    ours, expected = (torch.load(p, weights_only=False) for p in (path, other))
    for key, value in expected['state_dict'].items():
        torch.testing.assert_close(ours['state_dict'][key], value, rtol=0, atol=0)
    states = [checkpoint['optimizer']['state'] for checkpoint in (ours, expected)]
    assert states[0].keys() == states[1].keys()
    for index, state in states[1].items():
        for key, value in state.items():
            torch.testing.assert_close(states[0][index][key], value, rtol=0, atol=0)


@pytest.fixture(scope='session', params=SETTINGS)
def whole_run(request, workplace):
    before = Path.cwd()
    os.chdir(workplace.folder)
    try:
        yield request.param, train(request.param, workplace.folder / 'whole' / request.param)
    finally:
        os.chdir(before)


@pytest.mark.parametrize('by', ['crash', 'term'])
def test_resumed_equals_uninterrupted(whole_run, by, tmp_path, workplace, monkeypatch):
    """The checkpoints: after epoch 1 and iteration 5, or after the running iteration."""
    monkeypatch.chdir(workplace.folder)
    name, expected = whole_run
    stop = (6, by)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped:
        train(name, tmp_path, stop=stop)
    if stop[1] == 'term':
        assert stopped.value.code == 143
        assert f'iter_{stop[0] + 1}' in (tmp_path / 'last_checkpoint').read_text()
    # A resumed run takes its seed over, so another one changes nothing.
    assert_equal(train(name, tmp_path, resume=True, **{'randomness.seed': 5}), expected)
    assert not list(tmp_path.glob('epoch_*_iter_*')), 'what SIGTERM saved has been superseded'


def test_another_seed_is_another_run(workplace, tmp_path, monkeypatch):
    """The comparison can fail: random numbers do matter here."""
    monkeypatch.chdir(workplace.folder)
    first, other = (
        train(
            'vit_segment',
            tmp_path / str(seed),
            **{'train_cfg.max_iters': 3, 'randomness.seed': seed},
        )
        for seed in (1, 2)
    )
    with pytest.raises(AssertionError):
        assert_equal(first, other)


@pytest.mark.parametrize(
    'name, changes, cut, made_up',
    [
        ('locatvit_classify', {'train_cfg.val_interval': 2}, 12, [12]),
        ('vit_segment', {'train_cfg.val_interval': 5}, 10, [10, 12]),
    ],
)
def test_a_validation_that_was_cut_short_is_made_up(
    name, changes, cut, made_up, workplace, tmp_path, monkeypatch
):
    monkeypatch.chdir(workplace.folder)
    with pytest.raises(KeyboardInterrupt):
        train(name, tmp_path, hook=StopInValidation(cut), **changes)
    resumed = StopInValidation()
    train(name, tmp_path, resume=True, hook=resumed, **changes)
    assert resumed.validated == made_up


def test_another_batch_size_is_told_and_goes_on_from_the_same_part(
    workplace, tmp_path, monkeypatch
):
    """Stopped after 3 of 4 batches of the second epoch: 6 of 8 when they are half as large."""
    monkeypatch.chdir(workplace.folder)
    with pytest.raises(SystemExit):
        train('locatvit_classify', tmp_path, stop=(6, 'term'))
    last = train('locatvit_classify', tmp_path, True, **{'train_dataloader.batch_size': 16})
    log = '\n'.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert 'batch_size was 32 and is 16, epoch_length was 4 and is 8: the run continues with' in log
    assert 'going on after iteration 14, batch 6 of its pass' in log
    assert torch.load(last, weights_only=False)['meta']['iter'] == 24


def test_fewer_samples_than_a_batch_are_an_error(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    with pytest.raises(
        ValueError, match=r'\d+ training samples make no batch of 4000 on 1 processes'
    ):
        train('locatvit_classify', tmp_path, **{'train_dataloader.batch_size': 4000})


def test_processes_that_resume_from_different_iterations_fail(workplace, tmp_path, monkeypatch):
    """As where only one node has the checkpoint; the other starts anew."""
    monkeypatch.chdir(workplace.folder)
    ends = torch.tensor([6, 0])
    monkeypatch.setattr(exact_resume, 'all_reduce', lambda data, op: data.copy_(ends))
    with pytest.raises(RuntimeError, match='different iterations, 0 to 6'):
        train('vit_segment', tmp_path)


def test_waiting_gradients_are_told(workplace, tmp_path, monkeypatch):
    """A checkpoint between two steps of the optimizer lacks what the next one sums."""
    monkeypatch.chdir(workplace.folder)
    train('vit_segment', tmp_path, **{'optim_wrapper.accumulative_counts': 4})
    log = '\n'.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert [f'iter_{step}.pth lacks the gradients' in log for step in (5, 10, 12)] == [1, 1, 0]


def test_a_kill_before_the_removal_leaves_nothing_behind(workplace, tmp_path, monkeypatch):
    """Killed when the new checkpoint stands and the outdated one does too."""
    monkeypatch.chdir(workplace.folder)
    changes = {'default_hooks.checkpoint.interval': 4, 'default_hooks.checkpoint.max_keep_ckpts': 1}

    def killed(self, step):
        if step is not None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SafeCheckpointHook, '_remove', killed)
        train('vit_segment', tmp_path, **changes)
    assert {path.name for path in tmp_path.glob('iter_*')} == {'iter_4.pth', 'iter_8.pth'}
    train('vit_segment', tmp_path, resume=True, **changes)
    assert {path.name for path in tmp_path.glob('iter_*')} == {'iter_12.pth'}


def test_a_full_disk_takes_no_checkpoint_away(workplace, tmp_path, monkeypatch):
    """Only one is kept, and the old one is there until the new one stands."""
    monkeypatch.chdir(workplace.folder)
    sync, written = os.fsync, []

    def full(descriptor):
        name = os.readlink(f'/proc/self/fd/{descriptor}')
        if 'iter_' in name:
            written.append(name)
            if len(written) == 2:
                assert (tmp_path / 'iter_2.pth').exists()
                raise OSError(errno.ENOSPC, 'No space left on device')
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', full)
    changes = {'default_hooks.checkpoint.interval': 2, 'default_hooks.checkpoint.max_keep_ckpts': 1}
    with pytest.raises(OSError, match='No space left'):
        train('vit_segment', tmp_path, **changes)
    assert [path.name for path in tmp_path.glob('*iter_*')] == ['iter_2.pth']
    assert not list(tmp_path.glob('.*.tmp'))
    assert find_resumable(tmp_path) == str(tmp_path / 'iter_2.pth')
    monkeypatch.setattr(os, 'fsync', sync)
    train('vit_segment', tmp_path, resume=True, **changes)
    assert [path.name for path in tmp_path.glob('*iter_*')] == ['iter_12.pth']


def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys):
    for name in ('epoch_1', 'epoch_2', 'epoch_3', 'best_top1'):
        torch.save(dict(state_dict=dict(weight=torch.randn(1000))), tmp_path / f'{name}.pth')
        os.utime(tmp_path / f'{name}.pth', (int(name[-1]),) * 2)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    assert find_resumable(tmp_path) == str(tmp_path / 'epoch_3.pth')
    whole = (tmp_path / 'epoch_3.pth').read_bytes()
    (tmp_path / 'epoch_3.pth').write_bytes(whole[: len(whole) // 2])
    damaged = bytearray((tmp_path / 'epoch_2.pth').read_bytes())
    with zipfile.ZipFile(tmp_path / 'epoch_2.pth') as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith('data/0'))
    damaged[info.header_offset + 2000] ^= 1
    (tmp_path / 'epoch_2.pth').write_bytes(damaged)
    assert find_resumable(tmp_path) == str(tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text('')
    assert find_resumable(tmp_path) == str(tmp_path / 'epoch_1.pth')
    assert find_resumable(tmp_path / 'nowhere') is None


def test_a_checkpoint_tells_where_the_run_stands():
    """Also to FlexibleRunner, which writes the end of an epoch into ``meta`` by itself."""
    hook = SafeCheckpointHook(interval=1)
    checkpoint = dict(meta=dict(epoch=58, iter=567, seed=0))
    hook._position = dict(epoch=57, iter=568)
    hook.before_save_checkpoint(None, checkpoint)
    assert checkpoint['meta'] == dict(epoch=57, iter=568, seed=0)


def test_a_sample_has_other_random_numbers_in_the_next_epoch():
    sampler = exact_resume.SeededSampler(DefaultSampler(range(6), shuffle=True), seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append([index.where for index in sampler])
    assert epochs[0] == epochs[2] and not set(epochs[0]) & set(epochs[1])
