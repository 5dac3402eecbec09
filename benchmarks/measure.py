"""What the benchmarks share: turns within rounds, medians of ratios, peak memory, the header."""

import datetime
import gc
import math
import multiprocessing
import platform
import re
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

__all__ = [
    *('MEMORY', 'alternate', 'available_memory', 'device_name', 'in_fresh_processes', 'markdown'),
    *('median_ratio', 'now', 'peak_memory', 'provenance', 'synchronize'),
]

#: How :func:`peak_memory` measures, for the header.
MEMORY = {
    'cpu': 'peak resident set (VmHWM) above that before model and inputs were built',
    'cuda': 'torch.cuda.max_memory_allocated',
}
#: A timed block is to last so long, in seconds.
_ENOUGH = 0.2
#: What children of the fork server share: imports, which would take each of them seconds.
_PRELOADED = ['mmpretrain.models', 'locat_mm']


def now(device: str) -> float:
    """Seconds, after all work on the device is done."""
    synchronize(device)
    return time.perf_counter()


def synchronize(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def alternate(
    calls: Mapping[str, Callable[[], Any]], rounds: int, device: str, iterations: int | None = None
) -> dict[str, list[float]]:
    """Time calls that take turns within each round, so that a busy machine slows all of them.

    Args:
        calls: name -> what to time.
        rounds: how often each has its turn; one more, untimed, comes first.
        device: ``'cpu'`` or ``'cuda'``.
        iterations: calls per turn; by default enough of each for a fifth of a second.

    Returns:
        name -> seconds per call, one number a round.
    """
    counts = {}
    for name, call in calls.items():
        # Twice at least: the first call compiles kernels and fills caches.
        _block(call, iterations or 1, device)
        counts[name] = iterations or math.ceil(_ENOUGH / _block(call, 1, device))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if device == 'cuda':
                # The turn's own allocations, not what the one before left behind.
                torch.cuda.empty_cache()
                call()
            times[name].append(_block(call, counts[name], device))
    return times


def _block(call: Callable[[], Any], count: int, device: str) -> float:
    """Seconds per call of so many in a row."""
    start = now(device)
    for _ in range(count):
        call()
    return (now(device) - start) / count


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def peak_memory(
    prepare: Callable[..., Callable[[], Any]],
    arguments: tuple,
    device: str,
    threads: int,
    warm_up: tuple | None = None,
) -> float:
    """MiB that a call takes, with what is prepared for it; on the CPU to be run in a fresh process.

    Args:
        prepare: gives the call, which is made twice: an optimizer's state comes with the first.
        arguments: of ``prepare``.
        device: ``'cpu'`` or ``'cuda'``.
        threads: on the CPU.
        warm_up: arguments of a small call made before, which loads libraries and workspaces.
    """
    torch.set_num_threads(threads)
    if warm_up is not None:
        prepare(*warm_up)()
    gc.collect()
    if device == 'cuda':
        synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated() / 2**20 if device == 'cuda' else _resident('VmRSS')
    call = prepare(*arguments)
    for _ in range(2):
        call()
    if device == 'cuda':
        synchronize(device)
        return torch.cuda.max_memory_allocated() / 2**20 - start
    return _resident('VmHWM') - start


def _resident(field: str) -> float:
    """VmRSS (now) or VmHWM (the peak) of this process, in MiB."""
    # Not ru_maxrss, which a new process inherits from its parent.
    return _kilobytes('/proc/self/status', field) / 1024


def available_memory(device: str) -> float:
    """Bytes that can still be allocated."""
    if device == 'cuda':
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + unused
    return _kilobytes('/proc/meminfo', 'MemAvailable') * 1024


def _kilobytes(path: str, field: str) -> int:
    text = Path(path).read_text()
    found = re.search(rf'^{field}:\s+(\d+) kB$', text, re.MULTILINE)
    assert found is not None, text
    return int(found[1])


def in_fresh_processes(function: Callable, calls: Sequence[tuple], fork: bool = False) -> list[Any]:
    """Call a function of an importable module, each time in a process of its own, two at a time.

    Args:
        function: what to call.
        calls: the arguments of each call.
        fork: out of a server that has the heavy imports behind it, in a tenth of the time. What
            such a child first touches of a library counts as its own memory, so warm up before
            measuring; and not where CUDA is used.
    """
    context = multiprocessing.get_context('forkserver' if fork else 'spawn')
    if fork:
        context.set_forkserver_preload(_PRELOADED)
    with ProcessPoolExecutor(min(2, len(calls)), context, max_tasks_per_child=1) as pool:
        jobs = [pool.submit(function, *arguments) for arguments in calls]
        return [job.result() for job in jobs]


def device_name(device: str) -> str:
    """The GPU, or the CPU and the threads used."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    cpu = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.+)', cpu.read_text()) if cpu.exists() else None
    name = found[1] if found else platform.machine()
    return f'{name}, {torch.get_num_threads()} threads'


def provenance(script: str, command: Sequence[str], device: str, **versions: str) -> str:
    """What every number needs beside it: command, date, device, versions."""
    found = ', '.join(f'{name} {version}' for name, version in versions.items())
    return (
        f'`{shlex.join(["python", f"benchmarks/{script}", *command])}`, '
        f'{datetime.date.today()}, {device_name(device)}, {found}'
    )


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], num_left: int = 1) -> str:
    """A table whose first columns are aligned left, the others right."""
    rule = ['---'] * num_left + ['---:'] * (len(columns) - num_left)
    return '\n'.join(f'| {" | ".join(row)} |' for row in (columns, rule, *rows)) + '\n'
