"""benchmarks/attention.py: its wiring, its ratios and its files; not its numbers."""

import importlib
import json
import re
import statistics

import pytest
import torch

from locat_mm.ops import BACKENDS
from tests.support.processes import server


@pytest.fixture
def modules():
    """The benchmark's modules by name, importable in the processes that it starts, too."""
    server()  # forks them
    return importlib.import_module


@pytest.fixture
def run(modules, tmp_path, capsys):
    def run(*arguments: str) -> tuple[str, str, dict]:
        out = tmp_path / 'out' / 'attention.md'
        threads = torch.get_num_threads()
        modules('attention').main(['--smoke', '--threads', '1', '--out', str(out), *arguments])
        torch.set_num_threads(threads)
        assert out.with_suffix('.png').stat().st_size > 1000
        return (
            out.read_text(),
            capsys.readouterr().out,
            json.loads(out.with_suffix('.json').read_text()),
        )

    return run


def rows_of(text: str) -> list[list[str]]:
    lines = [re.split(r' *\| *', line)[1:-1] for line in text.splitlines() if line[:1] == '|']
    return [line for line in lines if not line[0].startswith('---')]


def test_the_operator(run, modules):
    table, printed, found = run('--only', 'op', '--sizes', '48')
    assert table in printed and '[2/2] op' in printed
    head, *rows = rows_of(table)
    assert tuple(head) == modules('attention_report').COLUMNS
    left_out = {entry['variant']: entry['reason'] for entry in found['left_out']}
    if not torch.cuda.is_available():
        assert 'needs a GPU' in left_out['triton'] and '- triton (everywhere): it needs' in table
    variants = ['plain', *(name for name in BACKENDS if name not in left_out), 'prr']
    assert [row[1:6] for row in rows] == [
        ['48²', '10', '1', mode, variant]
        for mode in ('forward', 'training')
        for variant in variants
    ]
    assert [r['variant'] for r in found['records']] == variants * 2
    assert all(r['milliseconds'] > 0 and r['mib'] >= 0 for r in found['records'])


def test_the_model(run):
    settings = ['--arch', 'tiny', '--sizes', '32', '64', '--batch-sizes', '2', '1']
    table, _, found = run('--only', 'model', *settings, '--backends', 'naive')
    assert [row[1:6] for row in rows_of(table)[1:]] == [
        [*size, mode, variant]
        for size in (('32²', '5', '2'), ('64²', '17', '1'))
        for mode in ('forward', 'training')
        for variant in ('plain', 'naive')
    ]
    for record in found['records']:
        # ViT-Tiny's weights take 22 MiB; training adds their gradients and AdamW's two moments.
        low, high = (20, 60) if record['mode'] == 'forward' else (80, 200)
        assert low < record['mib'] < high
    assert not found['left_out']


def test_ratios_are_of_the_same_round(modules):
    case = modules('attention_cases').Case(
        'op', 'plain', 'forward', 'tiny', 224, 8, 'cpu', torch.float32
    )
    cases = [case._replace(variant=name) for name in ('plain', 'eager', 'naive', 'prr')]
    # The machine is ten times slower in the third round.
    times = dict(plain=[1, 2, 10], eager=[3, 2, 20], naive=[9, 10, 90], prr=[1, 1, 1])
    memory = dict(plain=4, eager=8, naive=32, prr=4)
    records = modules('attention_report').make_records(cases, times, memory)
    _, eager, _, prr = records
    assert eager['time_to_plain'] == statistics.median([3 / 1, 2 / 2, 20 / 10])
    assert eager['time_to_plain'] != statistics.median([3, 2, 20]) / statistics.median([1, 2, 10])
    assert eager['naive_time_to_it'] == statistics.median([9 / 3, 10 / 2, 90 / 20])
    assert (eager['memory_to_plain'], eager['naive_memory_to_it']) == (2, 4)
    assert eager['milliseconds'] == 3000 and eager['images_per_second'] == pytest.approx(8 / 3)
    assert prr['naive_time_to_it'] is None


def test_calls_take_turns(modules):
    calls: list[str] = []
    times = modules('measure').alternate(
        {name: lambda name=name: calls.append(name) for name in 'ab'}, 3, 'cpu', iterations=2
    )
    assert ''.join(calls) == 'aabb' * 4
    assert [len(times[name]) for name in 'ab'] == [3, 3]


def test_what_would_not_fit_is_left_out(modules, monkeypatch):
    cases = modules('attention_cases')
    case = cases.Case('model', 'naive', 'training', 'base', 512, 1, 'cpu', torch.float32)
    monkeypatch.setattr(cases, 'available_memory', lambda device: 2.0**30)
    assert re.fullmatch(r'it takes \d+\.\d GiB, and 0\.8 GiB may be used', reason(cases, case))
    assert reason(cases, case._replace(variant='plain')) is None
    assert reason(cases, case._replace(arch='tiny', size=224)) is None
    monkeypatch.setattr(cases, 'available_memory', lambda device: 2.0**40)
    assert reason(cases, case) is None


def reason(cases, case) -> str | None:
    return cases.reason_against(case)


def test_peak_memory_is_the_calls_own(modules):
    """64 MiB held and 32 MiB more during the call; other calls' memory does not count."""
    if torch.cuda.is_available():
        pytest.skip('it measures the memory of a machine without a GPU')
    measure = modules('measure')
    jobs = [(holding, (64, 32), 'cpu', 1, (1, 1)), (holding, (8, 0), 'cpu', 1, (1, 1))]
    found = measure.in_fresh_processes(measure.peak_memory, jobs, fork=True)
    assert found == pytest.approx([96, 8], abs=4)


def holding(held: int, passing: int):
    kept = torch.ones(held, 2**18)
    return lambda: (kept.sum() + torch.ones(passing, 2**18).sum()).item()


def test_bad_input_is_one_clear_error(modules, capsys):
    for wrong, message in (
        (['--rounds', '0'], '--rounds must be positive, got 0'),
        (['--threads', '-1'], '--threads must be positive, got -1'),
        (['--sizes', '224', '100'], '--sizes must be multiples of 16 from 32 on, got 100'),
        (['--batch-sizes', '1'], 'a positive number for each of 3 sizes, got [1]'),
        (['--sizes', '64', '--batch-sizes', '0'], 'for each of 1 sizes, got [0]'),
        (['--out', 'table.txt'], '--out names a file .md, got table.txt'),
        (['--backends', 'cudnn'], "invalid choice: 'cudnn'"),
        (['--only', 'layer'], "invalid choice: 'layer'"),
        (['--arch', 'huge'], "invalid choice: 'huge'"),
    ):
        with pytest.raises(SystemExit):
            modules('attention').main(wrong)
        assert message in capsys.readouterr().err.splitlines()[-1]
