"""A checkpoint to resume from is complete, or refused; mmengine resumes what it finds."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import LinearLR, OptimWrapper
from torch import nn

from locat_mm.checkpoint import check_average, check_resumable, check_training_state, resuming


def make_run():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedulers = [LinearLR(optimizer, begin=0, end=9), LinearLR(optimizer, begin=9, end=19)]
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    wrapper = OptimWrapper(optimizer)
    return SimpleNamespace(optim_wrapper=wrapper, param_schedulers=schedulers), model


@pytest.fixture
def saved():
    runner, model = make_run()
    average = {f'module.{key}': value for key, value in model.state_dict().items()}
    return copy.deepcopy(
        dict(
            meta=dict(epoch=1, iter=10),
            message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
            optimizer=runner.optim_wrapper.state_dict(),
            param_schedulers=[scheduler.state_dict() for scheduler in runner.param_schedulers],
            ema_state_dict={'steps': torch.tensor(3), **average},
        )
    )


def check(saved):
    check_resumable(saved, 'it', has_schedule=True)
    runner, model = make_run()
    check_average(model, saved)
    check_training_state(runner, model, saved)


def test_a_whole_one_passes_as_it_is(saved, monkeypatch):
    monkeypatch.setattr(resuming, 'print_log', None)  # nothing to say
    before = copy.deepcopy(saved)
    check(saved)
    assert saved['ema_state_dict'].keys() == before['ema_state_dict'].keys()
    assert str(saved) == str(before)


def entry(saved):
    return saved['optimizer']['state'][1]


SPOILS = {
    'of optimizer': lambda s: s.pop('optimizer'),
    'of param_schedulers': lambda s: s.pop('param_schedulers'),
    'of meta': lambda s: s.pop('meta'),
    'of message_hub.resumed_keys': lambda s: s['message_hub'].pop('resumed_keys'),
    r"of meta.iter \(it is 'many'\)": lambda s: s['meta'].update(iter='many'),
    r'of meta.epoch \(it is -1\)': lambda s: s['meta'].update(epoch=-1),
    'no param_groups or no state': lambda s: s['optimizer'].pop('state'),
    '3 parameters in 1 groups, this run has 4 in 1': lambda s: s['optimizer']['param_groups'][0][
        'params'
    ].pop(),
    'has None as lr of group 0': lambda s: s['optimizer']['param_groups'][0].pop('lr'),
    r'state for no parameter: \[7\]': lambda s: s['optimizer']['state'].update({7: entry(s)}),
    'lacks exp_avg for 0.bias': lambda s: entry(s).pop('exp_avg'),
    r'exp_avg of shape \(2,\) instead of \(4,\) for 0.bias': lambda s: entry(s).update(
        exp_avg=torch.ones(2)
    ),
    'exp_avg as torch.int32 for 0.bias': lambda s: entry(s).update(
        exp_avg=torch.ones(4, dtype=torch.int32)
    ),
    'NaN or infinity in exp_avg_sq for 0.bias': lambda s: entry(s)['exp_avg_sq'].fill_(
        float('nan')
    ),
    'has 1 param_schedulers, the config 2': lambda s: s['param_schedulers'].pop(),
    'param_schedulers.1 of the checkpoint knows no last step': lambda s: s['param_schedulers'][
        1
    ].pop('last_step'),
    'ema_state_dict of the checkpoint does not fit Sequential.*\n  missing: 1.bias': lambda s: s[
        'ema_state_dict'
    ].pop('module.1.bias'),
}


@pytest.mark.parametrize('message', SPOILS)
def test_what_is_not_whole_is_refused(message, saved):
    SPOILS[message](saved)
    with pytest.raises(ValueError, match=f'(?s){message}'):
        check(saved)


def test_a_parameter_without_state_is_named(saved, monkeypatch):
    """It may have had no gradient; a frozen one needs none."""
    told = []
    monkeypatch.setattr(resuming, 'print_log', lambda text, *_: told.append(text))
    del saved['optimizer']['state'][3]
    check(saved)
    assert 'no state for 1.bias: right only if they had no gradient yet' in told.pop()
    runner, model = make_run()
    model[1].bias.requires_grad_(False)
    check_training_state(runner, model, saved)
    assert not told


def test_an_optimizer_that_keeps_less_for_vectors_is_resumed():
    """Adafactor factors the moments of matrices alone."""
    runner, model = make_run()
    optimizer = torch.optim.Adafactor(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    runner.optim_wrapper = OptimWrapper(optimizer)
    schedulers = [scheduler.state_dict() for scheduler in runner.param_schedulers]
    checkpoint = dict(optimizer=optimizer.state_dict(), param_schedulers=schedulers)
    parts = {tuple(entry) for entry in checkpoint['optimizer']['state'].values()}
    assert len(parts) == 2
    check_training_state(runner, model, checkpoint)
