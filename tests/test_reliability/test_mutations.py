"""reliability/mutations.py with a few mutants, and that it sees what it looks for."""

import gc
import random
import sys
from pathlib import Path

import pytest

from locat_mm.checkpoint import fitting
from locat_mm.cli import reporting
from locat_mm.engine import launch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def programs():
    sys.path.insert(0, str(ROOT / 'reliability'))
    import mutants
    import mutations

    yield mutations, mutants
    sys.path.remove(str(ROOT / 'reliability'))


@pytest.fixture(scope='module')
def laboratory(programs, tmp_path_factory):
    yield programs[0].Laboratory(tmp_path_factory.mktemp('laboratory'))
    gc.unfreeze()


def test_mutants_are_refused_in_words_or_loaded_right(programs, laboratory, tmp_path):
    counts = programs[0].try_mutants(60, 7, laboratory, tmp_path / 'log')
    assert not {v for _, v in counts} - {'refused', 'runs'}, (tmp_path / 'log').read_text()
    for kind in ('config', 'checkpoint'):
        for verdict in ('refused', 'runs'):
            assert sum(n for (k, v), n in counts.items() if kind in k and v == verdict) > 2


def try_family(programs, laboratory, monkeypatch, family, seeds):
    """Verdicts on checkpoints of one family."""
    chosen = getattr(programs[1], family)
    monkeypatch.setattr(programs[0], 'FAMILIES', {chosen: 1})
    return {laboratory.try_checkpoint(random.Random(seed))[1].split(' ')[0] for seed in seeds}


def test_it_sees_code_that_is_executed(programs, laboratory, monkeypatch):
    """``--trust-checkpoint`` does it."""
    trust = launch.trust_checkpoints
    monkeypatch.setattr(launch, 'trust_checkpoints', lambda trusted: trust(True))
    assert 'CODE' in try_family(programs, laboratory, monkeypatch, 'hostile', range(4))


def test_it_sees_a_partial_load_in_silence(programs, laboratory, monkeypatch):
    monkeypatch.setattr(fitting, 'list_keys', lambda keys: 'some')
    assert 'SILENT' in try_family(programs, laboratory, monkeypatch, 'keys', range(8))


def test_it_sees_weights_that_are_not_the_files(programs, laboratory, monkeypatch):
    compare = fitting._compare

    def spoiled(*args):
        fitted = compare(*args)
        fitted.state.update({k: v + 1 for k, v in fitted.state.items() if 'norm1.bias' in k})
        return fitted

    monkeypatch.setattr(fitting, '_compare', spoiled)
    assert 'WRONG' in try_family(programs, laboratory, monkeypatch, 'whole', range(4))


def test_it_sees_an_error_without_a_message(programs, laboratory, monkeypatch):
    seen = [try_family(programs, laboratory, monkeypatch, 'no_checkpoint', range(1))]
    monkeypatch.setattr(reporting, '_describe', lambda error, argv: 'oh')
    seen += [try_family(programs, laboratory, monkeypatch, 'no_checkpoint', range(1))]
    assert seen == [{'refused'}, {'NO'}]
