"""Training that is killed and resumed: kills.py with a few kills."""

import os
import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.support.processes import server

from . import kills
from .attempts import Forked
from .runs import Plan
from .states import differences, last_checkpoint, write_data


@pytest.fixture(scope='module')
def clean():
    """A process without the threads and settings of other tests, from which runs can fork."""
    with ProcessPoolExecutor(1, mp_context=server()) as pool:
        yield pool


def kill(folder: Path, *arguments: str) -> int:
    folder.mkdir()
    out = folder / 'kills.log'
    return kills.main([*arguments, '--seed', '6', '--work-dir', str(folder), '--out', str(out)])


def read(folder: Path) -> tuple[list[str], list[str]]:
    """The lines of kills, and of runs."""
    lines = (folder / 'kills.log').read_text().splitlines()
    killed = [line for line in lines if re.match(r' *\d+  (epoch|iteration) ', line)]
    return killed, [line for line in lines if re.match(r' *run \d+:', line)]


def test_six_kills(clean, tmp_path):
    """Of both loops, with one process and two; two of them during a save."""
    anywhere, amid = tmp_path / 'anywhere', tmp_path / 'amid'
    arguments = ['--kills', '4', '--per-run', '1']
    assert clean.submit(kill, anywhere, *arguments).result(timeout=300) == 0
    killed, runs = read(anywhere)
    assert len(killed) == 4
    # One kill at most of each: so the first four plans were met, one after the other.
    assert len(runs) >= 4 and all(line.endswith('bit-equal') for line in runs)
    arguments = ['--kills', '2', '--per-run', '1', '--way', 'kill in save']
    assert clean.submit(kill, amid, *arguments).result(timeout=300) == 0
    killed, runs = read(amid)
    assert len(killed) == 2 and all(' in saving ' in line for line in killed)
    assert all(line.endswith('bit-equal') for line in runs)


def stop_three(folder: Path) -> tuple[list[list[int]], list[str]]:
    """Three processes without a stop, and with a SIGTERM to one of them during the second epoch."""
    write_data(folder)
    os.chdir(folder)
    codes = [Forked(Plan('epoch', 3, 0, folder / 'whole')).wait()]
    attempt = Forked(Plan('epoch', 3, 0, folder / 'run'))
    while attempt.poll() and attempt.numbers()[0] < 5:
        time.sleep(0.01)
    attempt.strike(signal.SIGTERM, rank=1)
    codes += [attempt.wait(), Forked(Plan('epoch', 3, 0, folder / 'run')).wait()]
    return codes, differences(last_checkpoint(folder / 'run'), last_checkpoint(folder / 'whole'))


def test_three_processes(clean, tmp_path):
    codes, differing = clean.submit(stop_three, tmp_path).result(timeout=120)
    assert codes == [[0] * 3, [143] * 3, [0] * 3]
    assert not differing


def change_processes(folder: Path) -> tuple[list[int], list[int], str, int]:
    """Two processes until a SIGTERM to one of them, then one."""
    write_data(folder)
    os.chdir(folder)
    two = Forked(Plan('epoch', 2, 0, folder / 'run'))
    while two.poll() and two.numbers()[0] < 6:
        time.sleep(0.01)
    two.strike(signal.SIGTERM, rank=1)
    codes = two.wait()
    one = Forked(Plan('epoch', 1, 0, folder / 'run'))
    then = one.wait()
    checkpoint = torch.load(last_checkpoint(folder / 'run'), weights_only=False)
    return codes, then, one.said(), checkpoint['meta']['iter']


def test_another_number_of_processes_is_told(clean, tmp_path):
    codes, then, log, iteration = clean.submit(change_processes, tmp_path).result(timeout=120)
    assert (codes, then, iteration) == ([143, 143], [0], 12)
    assert 'world_size was 2 and is 1, batch_size was 16 and is 32: the run continues with' in log
