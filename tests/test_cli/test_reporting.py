"""What stands above the traceback when a tool fails."""

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils.data import DataLoader, Dataset

from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.engine import build_runner
from tests.support import ROOT

TOOLS = ('train', 'test', 'demo/run', 'analysis_tools/benchmark', 'analysis_tools/get_flops')
TOOLS += ('model_converters/mm2timm', 'model_converters/timm2mm')
FEW = {
    'train_cfg.max_iters': 4,
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'model.backbone.init_cfg': None,
    'param_scheduler': None,
    'default_hooks.checkpoint.interval': 2,
}


@HOOKS.register_module(force=True)
class Bomb(Hook):
    """Fails in the fourth iteration."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 3:
            {}['fuse']


def fail(main, capsys, expected=Exception):
    """What a tool printed to stderr before it raised."""
    with pytest.raises(expected):
        reports_errors(main)()
    printed = capsys.readouterr().err
    assert printed.startswith('\nERROR: ') or '\n\nERROR: ' in printed
    return printed


@pytest.fixture
def training(workplace, monkeypatch, tmp_path):
    monkeypatch.chdir(workplace.folder)
    config = str(ROOT / 'configs/demo/vit_segment.py')

    def train(**changes):
        def main():
            cfg = load_config(config, {**FEW, **changes}, str(tmp_path))
            build_runner(cfg).train()

        return main

    return train


def test_training_says_where_it_stood_and_how_it_goes_on(training, capsys, tmp_path):
    printed = fail(training(custom_hooks=[dict(type='Bomb')]), capsys, KeyError)
    assert 'failed while training, at iteration 4, epoch 1' in printed
    assert 'KeyError: fuse (raised at ' in printed and 'test_reporting.py:' in printed
    last = tmp_path / 'iter_2.pth'
    assert f'The last whole checkpoint is {last}: the same command with --resume' in printed


def test_without_a_checkpoint_it_says_so(training, capsys):
    changes = {'default_hooks.checkpoint.interval': 100, 'custom_hooks': [dict(type='Bomb')]}
    assert 'There is no whole checkpoint' in fail(training(**changes), capsys)


def test_the_part_of_the_config_is_named(training, capsys):
    for changes, part, name in (
        ({'model.backbone.nonsense': 3}, 'model', 'LocAtViT'),
        ({'model.decode_head.type': 'Nowhere'}, 'model', 'Nowhere is not in the mmseg::model'),
        (
            {'train_dataloader.dataset.pipeline.2.type': 'Nowhere'},
            'the training loop and train_dataloader',
            'Nowhere is not in the mmseg::transform',
        ),
        (
            {'default_hooks.timer.type': None},
            'default_hooks and custom_hooks',
            'type must be a str or valid type',
        ),
        ({'optim_wrapper.optimizer.lr': -1.0}, 'optim_wrapper', 'Invalid learning rate: -1.0'),
    ):
        printed = fail(training(**changes), capsys)
        assert f'failed while building {part}, with' in printed and name in printed


def test_errors_of_ours_stand_as_they_are(training, capsys):
    printed = fail(training(**{'load_from': 'nowhere.pth'}), capsys, FileNotFoundError)
    assert printed.endswith('\n  no checkpoint at nowhere.pth\n\n')


class Broken(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise ValueError('img.png is no image\nmore of it')


def test_the_error_of_a_worker_is_told_without_its_traceback(capsys):
    def main():
        list(DataLoader(Broken(), num_workers=1))

    printed = fail(main, capsys, ValueError)
    message = printed.split('ERROR')[1]
    assert 'ValueError: img.png is no image\n  more of it' in message
    assert 'Traceback' not in message


def test_the_process_is_named(monkeypatch, capsys):
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')

    def main():
        raise ValueError('no')

    assert '(process 1 of 2)' in fail(main, capsys, ValueError)


@pytest.mark.parametrize('stop', [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_stop_is_no_error(stop, capsys):
    def main():
        raise stop

    with pytest.raises(type(stop)):
        reports_errors(main)()
    assert not capsys.readouterr().err


@pytest.mark.parametrize('tool', TOOLS)
def test_every_tool_reports(tool):
    text = (ROOT / 'tools' / f'{tool}.py').read_text()
    assert '@reports_errors\ndef main(' in text
