"""Mutations with a few mutants, and that the program sees what it looks for."""

import gc
import random

import pytest

from locat_mm.checkpoint import fitting
from locat_mm.cli import reporting
from locat_mm.engine import launch

from . import changed_states, damaged_files, hostile_files, laboratory
from .mutations import try_mutants


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    yield laboratory.Laboratory(tmp_path_factory.mktemp('laboratory'))
    gc.unfreeze()


def test_mutants_are_refused_in_words_or_loaded_right(lab, tmp_path):
    counts = try_mutants(60, 7, lab, tmp_path / 'log')
    assert not {v for _, v in counts} - {'refused', 'runs'}, (tmp_path / 'log').read_text()
    for kind in ('config', 'checkpoint'):
        for verdict in ('refused', 'runs'):
            assert sum(n for (k, v), n in counts.items() if kind in k and v == verdict) > 2


def try_family(lab, monkeypatch, family, seeds):
    """Verdicts on checkpoints of one family."""
    monkeypatch.setattr(laboratory, 'FAMILIES', {family: 1})
    return {lab.try_checkpoint(random.Random(seed))[1].split(' ')[0] for seed in seeds}


def test_it_sees_code_that_is_executed(lab, monkeypatch):
    """``--trust-checkpoint`` does it."""
    trust = launch.trust_checkpoints
    monkeypatch.setattr(launch, 'trust_checkpoints', lambda trusted: trust(True))
    assert 'CODE' in try_family(lab, monkeypatch, hostile_files.hostile, range(4))


def test_it_sees_a_partial_load_in_silence(lab, monkeypatch):
    monkeypatch.setattr(fitting, 'list_keys', lambda keys: 'some')
    assert 'SILENT' in try_family(lab, monkeypatch, changed_states.keys, range(8))


def test_it_sees_weights_that_are_not_the_files(lab, monkeypatch):
    compare = fitting._compare

    def spoiled(*args):
        fitted = compare(*args)
        fitted.state.update({k: v + 1 for k, v in fitted.state.items() if 'norm1.bias' in k})
        return fitted

    monkeypatch.setattr(fitting, '_compare', spoiled)
    assert 'WRONG' in try_family(lab, monkeypatch, damaged_files.whole, range(4))


def test_it_sees_an_error_without_a_message(lab, monkeypatch):
    seen = [try_family(lab, monkeypatch, damaged_files.no_checkpoint, range(1))]
    monkeypatch.setattr(reporting, '_describe', lambda error, argv: 'oh')
    seen += [try_family(lab, monkeypatch, damaged_files.no_checkpoint, range(1))]
    assert seen == [{'refused'}, {'NO'}]
