"""Tools in processes of their own, without the ten seconds that each would spend on imports.

A server process, one for each worker of the tests, imports :mod:`tests.support.preload` and forks
a process for every call. The fork behaves as a new interpreter does: arguments, working directory,
environment, output, exit status and signals are its own.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import torch
from torch import distributed

from . import ROOT

PRELOAD = 'tests.support.preload'
#: seconds that a process may take
LIMIT = 300


def server() -> multiprocessing.context.BaseContext:
    """The context whose processes are forked from the server, which runs from now on."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([PRELOAD])
    before = dict(os.environ)
    os.environ.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


class ToolProcess:
    """A script that runs in a fork of the server. The methods are those of subprocess.Popen.

    Args:
        command: script and arguments.
        cwd: its working directory.
        env: additions to its environment.
        log: the file that gets its output.
    """

    def __init__(self, command: list[str], cwd: Path, env: dict[str, str], log: Path) -> None:
        arguments = (command, str(cwd), {**os.environ, **env}, str(log))
        self._process = server().Process(target=_become, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired('a tool', timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """End it and the processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def run_in_two(work: Callable[..., None], folder: Path, *args: object) -> None:
    """Call ``work(rank, folder, *args)`` in two processes that are joined over gloo.

    Raises:
        RuntimeError: if one of them fails; its error is printed.
    """
    context = server()
    processes = [context.Process(target=_join, args=(work, rank, folder, *args)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(LIMIT)
    finally:
        for process in processes:
            process.kill()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f'exit codes: {[process.exitcode for process in processes]}')


def _join(work: Callable[..., None], rank: int, folder: Path, *args: object) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    work(rank, folder, *args)
    distributed.destroy_process_group()


def _become(command: list[str], cwd: str, env: dict[str, str], log: str) -> None:
    """Be the tool."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    with open(log, 'ab') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, 'w', 1, closefd=False) for number in (1, 2))
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))  # as the interpreter does
    code: object = 1
    try:
        runpy.run_path(command[0], run_name='__main__')
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    # As the interpreter does at its end. Data loaders need it to stop their workers.
    atexit._run_exitfuncs()
    raise SystemExit(code)
