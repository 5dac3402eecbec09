"""A working directory with a small digit_scenes, and the tools run there as a user runs them."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import ROOT
from .processes import LIMIT, ToolProcess, free_port


class Workplace:
    """A folder with ``data/digit_scenes``, and tools that run in it.

    ``run`` and ``start`` fork a process that has imported everything, ``run_anew`` starts an
    interpreter or a shell, as a user does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, script: str, *args: object) -> list[str]:
        """``script`` is a path inside tools/, or an absolute one."""
        return [str(ROOT / 'tools' / script), *map(str, args)]

    @property
    def env(self) -> dict[str, str]:
        """What is added to the environment: a free port for processes that talk to each other."""
        port = str(free_port())
        return {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PORT': port}

    def start(self, script: str, *args: object, log: Path, **env: object) -> ToolProcess:
        """Start a tool whose output goes to ``log``; ``env`` is added to its environment."""
        added = {name: str(value) for name, value in env.items()}
        return ToolProcess(self.command(script, *args), self.folder, self.env | added, log)

    def run(self, script: str, *args: object, fails: bool = False, processes: int = 1) -> str:
        """Run a tool; return what it printed.

        Args:
            script: the tool.
            args: its arguments.
            fails: whether it has to fail.
            processes: how many of it to run, which talk to each other as those of
                tools/dist_train.sh do.
        """
        handle, name = tempfile.mkstemp('.txt', 'output_', self.folder)
        os.close(handle)
        log = Path(name)
        if processes == 1:
            started = [self.start(script, *args, log=log)]
        else:
            where = dict(WORLD_SIZE=processes, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
            started = [
                self.start(*(script, *launched(args)), log=log, RANK=rank, LOCAL_RANK=rank, **where)
                for rank in range(processes)
            ]
        try:
            codes = [process.wait(LIMIT) for process in started]
        finally:
            for process in started:
                process.kill()
        printed = log.read_text()
        assert any(codes) == fails, printed[-3000:]
        return printed

    def run_anew(self, script: str, *args: object, fails: bool = False) -> str:
        """As :meth:`run`, without a fork. Needed once for each script, and for shell scripts."""
        runner = 'bash' if script.endswith('.sh') else sys.executable
        done = subprocess.run(
            [runner, *self.command(script, *args)],
            cwd=self.folder,
            env={**os.environ, **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )
        assert (done.returncode != 0) == fails, done.stdout[-3000:]
        return done.stdout


def launched(args: Iterable[object]) -> list[object]:
    """Arguments with a launcher, before ``--cfg-options``, which takes all that follows."""
    args = list(args)
    place = args.index('--cfg-options') if '--cfg-options' in args else len(args)
    return [*args[:place], '--launcher', 'pytorch', *args[place:]]
