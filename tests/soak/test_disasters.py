"""Two of the disasters, side by side."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.support.processes import ToolProcess

from . import states
from .disasters import DISASTERS, Trainer, suffer

CHOSEN = ('full disk', 'worker killed')


def fork(command, cwd, env, log):
    return ToolProcess(command[1:], cwd, env, log)


@pytest.fixture(scope='module')
def outcomes(workplace, tmp_path_factory):
    place = tmp_path_factory.mktemp('disasters')
    chosen = [disaster for disaster in DISASTERS if disaster.name in CHOSEN]
    train = Trainer(workplace.folder, fork)

    peace = place / 'peace'
    assert train(peace, 1).wait() == 0
    expected = states.last_checkpoint(peace)

    def run(disaster):
        return suffer(disaster, place / disaster.name, train, expected)

    with ThreadPoolExecutor(len(chosen)) as pool:
        return {row['name']: row for row in pool.map(run, chosen)}


@pytest.mark.parametrize('name', CHOSEN)
def test_a_disaster_ends_the_run_and_loses_nothing(outcomes, name):
    outcome = outcomes[name]
    assert outcome['status'] != 0
    assert 'Error' in outcome['error']
    assert outcome['kept'].startswith('iter_')
    assert outcome['equal']
    assert outcome['ok'], outcome


def test_the_comparison_can_fail(tmp_path):
    """By one bit of one weight."""
    first, second = (tmp_path / name for name in ('a', 'b'))
    state = dict(
        state_dict=dict(weight=torch.ones(2)),
        optimizer={},
        param_schedulers=[],
        meta=dict(epoch=0, iter=1),
        message_hub=dict(log_scalars={}, runtime_info={}),
    )
    torch.save(state, first)
    state['state_dict']['weight'][1] += 1e-7
    torch.save(state, second)
    assert states.differences(first, first) == []
    assert len(states.differences(first, second)) == 1
