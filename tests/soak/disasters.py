"""What happens around a run: the disk fills, a worker dies, one of two processes dies.

Each disaster strikes a real run of tools/train.py or tools/dist_train.sh in its middle, after its
first checkpoint. The run must end by itself, with an error and nothing of it left running, within
a minute; its last checkpoint must be whole; and resumed it must reach the bits of a run that was
left in peace.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
from rich.console import Console
from rich.table import Table

from locat_mm.checkpoint import find_resumable
from tests.support import ROOT, demo_config
from tests.support.processes import free_port

from .states import differences, last_checkpoint, write_data

CONFIG = demo_config('vit_segment')
ITERATIONS, INTERVAL = 60, 15
#: seconds that a run may take to end
LIMIT = 60


@dataclass(frozen=True)
class Disaster:
    """What strikes, and how many processes the run has."""

    name: str
    strike: Callable[[psutil.Process, Path], None]
    processes: int = 1


def fill_disk(main: psutil.Process, work_dir: Path) -> None:
    """No file may grow beyond half a checkpoint: as on a full disk, the next save breaks off."""
    size = next(work_dir.glob('iter_*.pth')).stat().st_size // 2
    for process in [main, *main.children(recursive=True)]:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))


def kill_worker(main: psutil.Process, work_dir: Path) -> None:
    """What the kernel does to a worker when memory runs out."""
    _children(main)[0].kill()


def kill_rank(main: psutil.Process, work_dir: Path) -> None:
    _children(main)[-1].kill()


DISASTERS = (
    Disaster('full disk', fill_disk),
    Disaster('worker killed', kill_worker),
    Disaster('one of two processes killed', kill_rank, processes=2),
    Disaster('full disk, two processes', fill_disk, processes=2),
)


def _children(main: psutil.Process) -> list[psutil.Process]:
    return [child for child in main.children() if 'python' in child.cmdline()[0]]


class Process(Protocol):
    """A running tool, as ``subprocess.Popen`` is one."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


#: Starts a command in a folder, with additions to the environment; its output goes to a file.
Start = Callable[[list[str], Path, dict[str, str], Path], Process]


def start_anew(command: list[str], cwd: Path, env: dict[str, str], log: Path) -> Process:
    """As a user does."""
    with open(log, 'ab') as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Trainer:
    """Trains with the tools in the folder that ``data/digit_scenes`` is in.

    Args:
        data: the folder.
        start: starts a tool.
    """

    def __init__(self, data: Path, start: Start = start_anew) -> None:
        self.data = data
        self.start = start

    def __call__(self, work_dir: Path, processes: int, resume: bool = False) -> Process:
        settings = {
            'train_cfg.max_iters': ITERATIONS,
            'train_cfg.val_interval': ITERATIONS,
            'param_scheduler.0.total_steps': ITERATIONS,
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 2,
            'model.backbone.init_cfg': None,
            'model.backbone.frozen': False,
            'model.backbone.drop_path_rate': 0.3,
            'default_hooks.checkpoint.interval': INTERVAL,
            'default_hooks.checkpoint.max_keep_ckpts': 2,
        }
        tool = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(CONFIG)]
        if processes > 1:
            tool = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(CONFIG), str(processes)]
        options = [f'{key}={value}' for key, value in settings.items()]
        more = ['--resume'] if resume else []
        env = {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PORT': str(free_port())}
        work_dir.mkdir(parents=True, exist_ok=True)
        command = [*tool, '--work-dir', str(work_dir), *more, '--cfg-options', *options]
        return self.start(command, self.data, env, work_dir / 'output.txt')


def suffer(disaster: Disaster, work_dir: Path, train: Trainer, peaceful: Path) -> dict:
    """Let a disaster strike a run, resume it, and compare.

    Args:
        disaster: what strikes.
        work_dir: of the run.
        train: starts the run.
        peaceful: the last checkpoint of the run that was left in peace.

    Returns:
        ``status`` (exit status), ``seconds`` (from the strike to the end of the last process),
        ``error`` (the last line that names one), ``kept`` (the checkpoint to go on from) and
        ``equal`` (whether the resumed run ends in the same bits).
    """
    run = train(work_dir, disaster.processes)
    main = psutil.Process(run.pid)
    while not any(work_dir.glob('iter_*.pth')):
        if run.poll() is not None:
            raise RuntimeError(f'the run ended too early: {work_dir}/output.txt')
        time.sleep(0.05)
    family = [main, *main.children(recursive=True)]
    disaster.strike(main, work_dir)
    begin = time.monotonic()
    try:
        status = run.wait(LIMIT)
        _, alive = psutil.wait_procs(family, max(0.0, LIMIT - (time.monotonic() - begin)))
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        status, alive = 0, family
    seconds = time.monotonic() - begin
    lines = (work_dir / 'output.txt').read_text().splitlines()
    errors = [line for line in lines if 'Error' in line and not line.startswith(' ')]
    kept = find_resumable(work_dir)
    if kept is None or train(work_dir, disaster.processes, resume=True).wait() != 0:
        equal = False
    else:
        equal = not differences(last_checkpoint(work_dir), peaceful)
    return dict(
        name=disaster.name,
        status=status,
        seconds=round(seconds, 1),
        error=errors[-1] if errors else '',
        kept=Path(kept or 'nothing').name,
        equal=equal,
        ok=status != 0 and not alive and bool(errors) and equal,
    )


def show(rows: list[dict], file: str | None = None) -> None:
    table = Table(title=f'{sum(row["ok"] for row in rows)} of {len(rows)} as they should be')
    for header in ('disaster', 'exit', 'ended after (s)', 'error', 'kept', 'resumed: equal', 'ok'):
        table.add_column(header, overflow='fold')
    for row in rows:
        keys = ('name', 'status', 'seconds', 'error', 'kept', 'equal', 'ok')
        table.add_row(*(str(row[key]) for key in keys))
    Console(width=140).print(table)
    if file is not None:
        with open(file, 'w', encoding='utf-8') as out:
            Console(width=140, file=out).print(table)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', help='file for the table')
    parser.add_argument('--work-dir', help='where the runs go (kept); by default nowhere')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(args.work_dir or scratch).resolve()
        place.mkdir(parents=True, exist_ok=True)
        write_data(place)
        train = Trainer(place)
        peaceful = {}
        for processes in sorted({disaster.processes for disaster in DISASTERS}):
            print(f'in peace, processes: {processes} ...', flush=True)
            folder = place / f'peace_{processes}'
            if train(folder, processes).wait() != 0:
                raise SystemExit(f'a run in peace failed; its output: {folder}/output.txt')
            peaceful[processes] = last_checkpoint(folder)
        rows = []
        for number, disaster in enumerate(DISASTERS):
            print(f'{disaster.name} ...', flush=True)
            expected = peaceful[disaster.processes]
            rows.append(suffer(disaster, place / f'disaster_{number}', train, expected))
    show(rows, args.out)
    if not all(row['ok'] for row in rows):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
