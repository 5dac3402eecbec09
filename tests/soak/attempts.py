"""One attempt at a small training run, that can be killed: forked from here, or through the tools.

Used by kills.py.
"""

import atexit
import multiprocessing.util
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  (mmengine's visualizer imports it late)
import numpy as np
import torch
from mmengine.hooks import Hook
from mmpretrain.utils import register_all_modules as import_mmpretrain
from mmseg.utils import register_all_modules as import_mmseg

from locat_mm.checkpoint.writing import AtomicBackend
from locat_mm.engine import build_runner
from tests.support import ROOT
from tests.support.processes import free_port

from .runs import Plan

__all__ = ['Forked', 'Tool']

# Once for all forks.
import_mmpretrain(init_default_scope=False)
import_mmseg(init_default_scope=False)

#: seconds that a run, or what is left of one, may take
LIMIT = 240


class Board:
    """What a run tells about itself, in memory that its parent shares."""

    PHASES = ('start', 'training', 'saving', 'validation', 'end')

    def __init__(self) -> None:
        self._values = multiprocessing.RawArray('q', [0, -1, -1, 0])

    def write(self, phase: str | None = None, **numbers: int) -> None:
        if phase is not None:
            self._values[0] = self.PHASES.index(phase)
        for index, name in enumerate(('reached', 'resumed', 'calls'), 1):
            self._values[index] = numbers.get(name, self._values[index])

    def __getattr__(self, name: str) -> Any:
        if name == 'phase':
            return self.PHASES[self._values[0]]
        return self._values[('reached', 'resumed', 'calls').index(name) + 1]


class Report(Hook):
    """Writes to the board."""

    priority = 'LOWEST'

    def __init__(self, board: Board) -> None:
        self.board = board

    def before_train(self, runner: Any) -> None:
        self.board.write('training', resumed=runner.iter, reached=runner.iter)

    def before_train_iter(self, runner: Any, **kwargs: Any) -> None:
        self.board.write('training', reached=runner.iter)

    def before_val(self, runner: Any) -> None:
        resumed = runner.iter if self.board.phase == 'start' else self.board.resumed
        self.board.write('validation', resumed=resumed, reached=runner.iter)

    def after_train(self, runner: Any) -> None:
        self.board.write('end')


def watch_saves(board: Board, trip: int) -> None:
    """Tell of saves; at the ``trip``-th call that a save makes of the system, kill the group."""
    put = AtomicBackend.put

    def watched(self: AtomicBackend, obj: bytes, filepath: Any) -> None:
        before = board.phase
        board.write('saving')
        put(self, obj, filepath)
        board.write(before)

    AtomicBackend.put = watched  # type: ignore[method-assign]
    for name in ('fsync', 'replace', 'remove'):
        setattr(os, name, _tripping(getattr(os, name), board, trip))


def _tripping(call: Any, board: Board, trip: int) -> Any:
    def tripping(target: Any, *args: Any) -> None:
        board.write(calls=board.calls + 1)
        if board.calls == trip:
            path = os.readlink(f'/proc/self/fd/{target}') if isinstance(target, int) else target
            print(f'tripped at {call.__name__} of {Path(path).name}', flush=True)
            if call.__name__ == 'fsync' and os.path.isfile(path):  # the disk has a part of it
                os.truncate(path, np.random.default_rng(trip).integers(os.path.getsize(path)))
            os.killpg(os.getpgrp(), signal.SIGKILL)
        call(target, *args)

    return tripping


class Attempt:
    """The processes of one attempt at a run; subclasses start them.

    Args:
        plan: the run.
        resume: go on from what earlier attempts saved.
        trip: call of the system, counted over saves, at which the run kills itself; 0 for none.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.log = Path(f'{plan.work_dir}.log')
        self._begun = self.log.stat().st_size if self.log.exists() else 0
        self.begin = time.monotonic()
        self.pids: list[int] = []
        self.codes: dict[int, int] = {}

    def said(self) -> str:
        """What this attempt has logged."""
        return self.log.read_text()[self._begun :]

    def phase(self) -> str:
        raise NotImplementedError

    def numbers(self) -> tuple[int, int]:
        """The iteration that it reached, and the one that it went on from."""
        raise NotImplementedError

    def strike(self, number: int, rank: int | None) -> None:
        """Send a signal to one process, or to all of them and their workers."""
        raise NotImplementedError

    def poll(self) -> bool:
        """Whether a process still runs."""
        for pid in {*self.pids} - {*self.codes}:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.codes[pid] = os.waitstatus_to_exitcode(status)
        return len(self.codes) < len(self.pids)

    def wait(self) -> list[int]:
        """Exit codes in the order of ranks; negative are signals.

        Raises:
            TimeoutError: if it runs for ``LIMIT`` seconds more; it is killed.
        """
        end = time.monotonic() + LIMIT
        while self.poll() and time.monotonic() < end:
            time.sleep(0.01)
        late = self.poll()
        self.strike(signal.SIGKILL, None)  # what is left, such as workers
        if late:
            raise TimeoutError(f'still running after {LIMIT} s: see {self.log}')
        return [self.codes[pid] for pid in self.pids]

    def strike_at(self, seconds: float, number: int, rank: int | None) -> str | None:
        """Send a signal after seconds from the start; the phase it met, or None if it was over."""
        while (runs := self.poll()) and time.monotonic() < self.begin + seconds:
            time.sleep(0.003)
        if not runs:
            return None
        phase = self.phase()
        self.strike(number, rank)
        return phase


class Forked(Attempt):
    """Forked from this process, which has imported everything."""

    def __init__(self, plan: Plan, resume: bool = True, trip: int = 0) -> None:
        super().__init__(plan)
        self.board = Board()
        port = free_port()
        for rank in range(plan.world):
            pid = os.fork()
            if not pid:
                self._be_child(rank, port, resume, trip)
            os.setpgid(pid, self.pids[0] if self.pids else pid)
            self.pids.append(pid)

    def phase(self) -> str:
        return self.board.phase

    def numbers(self) -> tuple[int, int]:
        return self.board.reached, self.board.resumed

    def strike(self, number: int, rank: int | None) -> None:
        with suppress(ProcessLookupError):
            if rank is None:
                os.killpg(self.pids[0], number)
            elif self.pids[rank] not in self.codes:
                os.kill(self.pids[rank], number)

    def _be_child(self, rank: int, port: int, resume: bool, trip: int) -> None:
        code: Any = 1
        try:
            os.setpgid(0, self.pids[0] if self.pids else 0)
            atexit._clear()  # what the parent has registered is not this process's
            atexit.register(multiprocessing.util._exit_function)
            with open(self.log, 'a') as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            torch.set_num_threads(1)
            where = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=self.plan.world, MASTER_PORT=port)
            os.environ.update({key: str(value) for key, value in where.items()})
            os.environ['MASTER_ADDR'] = '127.0.0.1'
            cfg = self.plan.config()
            cfg.resume = resume
            runner = build_runner(cfg)
            if rank == 0:
                runner.register_hook(Report(self.board))
                watch_saves(self.board, trip)
            runner.train()
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()  # as the interpreter does at its end
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


class Tool(Attempt):
    """tools/train.py or tools/dist_train.sh, as a user runs them."""

    def __init__(self, plan: Plan, resume: bool = True, trip: int = 0) -> None:
        super().__init__(plan)
        if trip:
            raise ValueError(f'a tool cannot be tripped, at {trip} or elsewhere')
        config = plan.work_dir.with_suffix('.py')
        plan.config().dump(config)
        script = 'dist_train.sh' if plan.world > 1 else 'train.py'
        command = ['bash' if plan.world > 1 else sys.executable, str(ROOT / 'tools' / script)]
        command += [str(config), *([str(plan.world)] if plan.world > 1 else [])]
        with open(self.log, 'a') as log:
            process = subprocess.Popen(
                [*command, *(['--resume'] if resume else [])],
                env={
                    **os.environ,
                    'OMP_NUM_THREADS': '1',
                    'PYTHON': sys.executable,
                    'PORT': str(free_port()),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pids = [process.pid]
        self.family = [process.pid]

    def phase(self) -> str:
        return 'start' if self.numbers()[0] < 0 else 'training'

    def numbers(self) -> tuple[int, int]:
        text = self.said()
        steps = re.findall(r'Iter\(train\) \[ *(\d+)/12\]', text)
        for epoch, step in re.findall(r'Epoch\(train\) *\[(\d+)\]\[ *(\d+)/\d+\]', text):
            steps.append((int(epoch) - 1) * 4 + int(step))
        begun = re.findall(r'going on after iteration (\d+)', text)
        return int(steps[-1]) if steps else -1, int(begun[-1]) if begun else 0

    def strike(self, number: int, rank: int | None) -> None:
        if self.pids[0] not in self.codes:
            self.family = [self.pids[0], *_descendants(self.pids[0])]
        for pid in self.family if rank is None else self.family[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid: int) -> Iterator[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f'/proc/{pid}/task').iterdir():
            for child in map(int, (task / 'children').read_text().split()):
                yield child
                yield from _descendants(child)
