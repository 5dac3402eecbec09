"""Several processes give one process's weights and metrics, on this machine over gloo.

Two nodes, each with its own launcher, are started by tools/dist_train.sh, testing by
tools/dist_test.sh; sharded training is forked.
"""

import json
import os
import re
import subprocess

import pytest
import torch

from locat_mm.checkpoint import read_state_dict
from tests.support import ROOT, demo_config

# SGD: Adam would hide a sum in place of a mean, and blow up the noise of zero gradients. A clip
# low enough to bite, and momentum and weight decay, so that every part of a step shows.
OPTIONS = (
    *('--cfg-options', 'param_scheduler=None', 'train_cfg.val_interval=1'),
    *('optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.lr=0.1'),
    *('optim_wrapper.optimizer.momentum=0.9', 'optim_wrapper.clip_grad.max_norm=0.5'),
)
EPOCHS, BATCH = 'train_cfg.max_epochs=', 'train_dataloader.batch_size='


@pytest.fixture(scope='module')
def alone(workplace):
    """Two epochs of one process, 32 images a step."""
    config = demo_config('locatvit_classify')
    args = ('--work-dir', 'alone', *OPTIONS, f'{EPOCHS}2', f'{BATCH}32')
    log = workplace.run('train.py', config, *args)
    return workplace.folder / 'alone', log


def assert_equal_weights(found, expected) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5, msg=str(key))


@pytest.fixture(scope='module')
def two_nodes(workplace):
    """One epoch of two processes, 16 images a step in each; a checkpoint, and both logs."""
    config = demo_config('locatvit_classify')
    env = {**os.environ, **workplace.env, 'NNODES': '2', 'MASTER_ADDR': '127.0.0.1'}
    command = ['bash', *workplace.command('dist_train.sh', config, 1)]
    nodes = [
        subprocess.Popen(
            [*command, '--work-dir', f'node{rank}', *OPTIONS, f'{EPOCHS}1', f'{BATCH}16'],
            cwd=workplace.folder,
            env=env | {'NODE_RANK': str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        logs = [node.communicate(timeout=120)[0] for node in nodes]
    finally:
        for node in nodes:
            node.terminate()  # its launcher ends the worker
    assert [node.returncode for node in nodes] == [0, 0], logs[0][-2000:] + logs[1][-2000:]
    return workplace.folder / 'node0' / 'epoch_1.pth', logs


def test_two_nodes(workplace, alone, two_nodes):
    checkpoint, logs = two_nodes
    assert ['2 processes on CPU over gloo' in log for log in logs] == [True, False]
    assert not (workplace.folder / 'node1' / 'epoch_1.pth').exists()
    assert_equal_weights(
        read_state_dict(checkpoint),
        read_state_dict(alone[0] / 'epoch_1.pth'),
    )


def test_metrics_of_two_processes(workplace, two_nodes):
    config, (checkpoint, _) = demo_config('locatvit_classify'), two_nodes
    both, single = workplace.folder / 'both.json', workplace.folder / 'single.json'
    args = ('--out-item', 'metrics', '--out')
    workplace.run_anew('dist_test.sh', config, checkpoint, 2, *args, both)
    workplace.run('test.py', config, checkpoint, *args, single)
    assert json.loads(both.read_text()) == json.loads(single.read_text())


def test_sharded(workplace, alone):
    """Resumed from a checkpoint of one process; what it writes is a checkpoint of one process."""
    config = workplace.folder / 'sharded.py'
    bases = [str(demo_config('locatvit_classify')), str(ROOT / 'configs' / '_base_' / 'fsdp.py')]
    config.write_text(f'_base_ = {bases}\n')
    args = ('--work-dir', 'sharded', '--resume', alone[0] / 'epoch_1.pth')
    args = ('train.py', config, *args, *OPTIONS, f'{EPOCHS}2', f'{BATCH}16')
    log = workplace.run(*args, processes=2)
    assert 'resumed epoch: 1, iter: 4' in log
    found, expected = (
        torch.load(workplace.folder / name / 'epoch_2.pth', weights_only=False)
        for name in ('sharded', 'alone')
    )
    assert_equal_weights(found['state_dict'], expected['state_dict'])
    for part in ('optimizer', 'message_hub'):
        assert set(found[part]) == set(expected[part])
    assert found['optimizer']['param_groups'] == expected['optimizer']['param_groups']
    momentum, same = (
        {index: values['momentum_buffer'] for index, values in saved['optimizer']['state'].items()}
        for saved in (found, expected)
    )
    assert_equal_weights(momentum, same)
    # The norm of the whole gradient, not of one process's part.
    norms = [re.findall(r'\[2\]\[4/4\].*grad_norm: ([\d.]+)', text)[0] for text in (log, alone[1])]
    assert float(norms[0]) == pytest.approx(float(norms[1]), rel=1e-3) and float(norms[0]) > 0.5
    accuracies = [
        re.findall(r'Epoch\(val\) \[2\].*accuracy/top1: ([\d.]+)', text) for text in (log, alone[1])
    ]
    assert accuracies[0] == accuracies[1] and len(accuracies[0]) == 1
