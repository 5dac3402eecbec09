"""``--deterministic``: equal bits in every run, and an error from what cannot give them."""

import json
import os
import runpy
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from locat_mm.engine import make_deterministic
from tests.support import ROOT, demo_config

FAST = ('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0')
FAST += ('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False')
SETTINGS = (*FAST, 'train_dataloader.batch_size=64', 'train_cfg.max_epochs=2')
SETTINGS += ('train_cfg.val_interval=2', 'model.backbone.drop_path_rate=0.3')


@HOOKS.register_module()
class Unordered(Hook):
    """Does what torch holds for not deterministic on every device."""

    def __init__(self, when):
        setattr(self, when, self.put)

    def put(self, *args, **kwargs):
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.tensor([2.0, 3.0]))


@pytest.fixture(autouse=True)
def settings_of_torch(monkeypatch):
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def run(monkeypatch, tool, *args):
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')


def config_with(folder, when):
    path = folder / 'unordered.py'
    base = str(demo_config('locatvit_classify'))
    path.write_text(f"_base_ = [{base!r}]\ncustom_hooks = [dict(type='Unordered', when={when!r})]")
    return path


def test_equal_bits(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    states = []
    for name, seed in (('one', 1), ('same', 1), ('other', 2)):
        options = ('--cfg-options', *SETTINGS, f'randomness.seed={seed}')
        config = config_with(tmp_path, 'after_val_iter')  # evaluation may
        work_dir = ('--work-dir', tmp_path / name, '--no-persistent-workers')
        with pytest.warns(UserWarning, match='put_ does not have a deterministic'):
            run(monkeypatch, 'train.py', config, '--deterministic', *work_dir, *options)
        assert torch.get_deterministic_debug_mode() == 2  # strict again
        states.append(torch.load(tmp_path / name / 'epoch_2.pth', weights_only=False))
    one, same, other = (state['state_dict'] for state in states)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)
    for name in ('one', 'same'):
        options = ('--out', tmp_path / 'out.json', '--out-item', 'metrics', '--work-dir', tmp_path)
        checkpoint = tmp_path / name / 'epoch_2.pth'
        config = demo_config('locatvit_classify')
        options = ('--deterministic', *options, '--cfg-options', *FAST)
        run(monkeypatch, 'test.py', config, checkpoint, *options)
        states.append(json.loads((tmp_path / 'out.json').read_text()))
    assert states[-1] == states[-2]


def test_training_is_strict(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    args = (config_with(tmp_path, 'before_train_iter'), '--work-dir', tmp_path)
    args = (*args, '--no-persistent-workers', '--no-validate', '--cfg-options', *SETTINGS)
    with pytest.raises(RuntimeError, match='put_ does not have a deterministic implementation'):
        run(monkeypatch, 'train.py', args[0], '--deterministic', *args[1:])


def test_what_it_sets(monkeypatch):
    cfg = Config(dict(randomness=dict(seed=3), env_cfg=dict(cudnn_benchmark=True)))
    cfg.custom_hooks = [dict(type='Mine')]
    make_deterministic(cfg)
    assert cfg.randomness == dict(seed=3, deterministic=True)
    assert not cfg.env_cfg.cudnn_benchmark
    assert [hook.type for hook in cfg.custom_hooks] == ['Mine', 'locat_mm.LenientEvaluationHook']
    assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    with pytest.raises(ValueError, match='needs a seed'):
        make_deterministic(Config(dict(randomness=dict(seed=None))))
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG')
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    with pytest.raises(RuntimeError, match='before CUDA starts'):
        make_deterministic(cfg)
