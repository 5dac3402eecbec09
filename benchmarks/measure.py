"""Shared parts of the benchmarks: timing in rounds, medians of ratios, peak memory, the header."""

import datetime
import gc
import math
import multiprocessing
import re
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from locat_mm.helpers import cpu_name

__all__ = [
    *('MEMORY', 'alternate', 'available_memory', 'device_name', 'in_fresh_processes', 'markdown'),
    *('median_ratio', 'now', 'peak_memory', 'provenance', 'synchronize'),
]

#: The method of :func:`peak_memory`, for the header.
MEMORY = {
    'cpu': 'peak resident set (VmHWM) above that before model and inputs were built',
    'cuda': 'torch.cuda.max_memory_allocated',
}
#: Shortest duration of a timed block, in seconds.
_ENOUGH = 0.2
#: Modules that the fork server imports once for all children; each import takes seconds.
_PRELOADED = ['mmpretrain.models', 'locat_mm']


def now(device: str) -> float:
    """The time in seconds, after all work on the device is done."""
    synchronize(device)
    return time.perf_counter()


def synchronize(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def alternate(
    calls: Mapping[str, Callable[[], Any]], rounds: int, device: str, iterations: int | None = None
) -> dict[str, list[float]]:
    """Time calls in turn within each round, so that other load affects all of them.

    Args:
        calls: name -> function to time.
        rounds: number of rounds; an untimed one comes first.
        device: ``'cpu'`` or ``'cuda'``.
        iterations: calls per round; by default enough for a fifth of a second.

    Returns:
        name -> seconds per call, one number per round.
    """
    counts = {}
    for name, call in calls.items():
        # At least two calls: the first one compiles kernels and fills caches.
        _block(call, iterations or 1, device)
        counts[name] = iterations or math.ceil(_ENOUGH / _block(call, 1, device))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if device == 'cuda':
                # Free what the previous call allocated, and allocate again before timing.
                torch.cuda.empty_cache()
                call()
            times[name].append(_block(call, counts[name], device))
    return times


def _block(call: Callable[[], Any], count: int, device: str) -> float:
    """Seconds per call, over ``count`` calls in a row."""
    start = now(device)
    for _ in range(count):
        call()
    return (now(device) - start) / count


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def peak_memory(
    prepare: Callable[..., Callable[[], Any]],
    arguments: tuple,
    device: str,
    threads: int,
    warm_up: tuple | None = None,
) -> float:
    """Measure the memory of a call and of its inputs, in MiB. On the CPU, use a new process.

    Args:
        prepare: returns the call, which runs twice: the first run creates the optimizer's state.
        arguments: arguments of ``prepare``.
        device: ``'cpu'`` or ``'cuda'``.
        threads: number of threads on the CPU.
        warm_up: arguments of ``prepare`` for a small first call, which loads libraries and
            workspaces.
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
    """VmRSS (the present value) or VmHWM (the peak) of this process, in MiB."""
    # ru_maxrss is not used: a new process inherits it from its parent.
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
    """Call a function several times, each time in a new process, two at a time.

    Args:
        function: a function of an importable module.
        calls: the arguments of each call.
        fork: fork the processes from a server that has done the slow imports; this takes a tenth
            of the time. Pages of a library that a child uses first count as memory of the child,
            so warm up before measuring. Not for CUDA.
    """
    context = multiprocessing.get_context('forkserver' if fork else 'spawn')
    if fork:
        context.set_forkserver_preload(_PRELOADED)
    with ProcessPoolExecutor(min(2, len(calls)), context, max_tasks_per_child=1) as pool:
        jobs = [pool.submit(function, *arguments) for arguments in calls]
        return [job.result() for job in jobs]


def device_name(device: str) -> str:
    """The name of the GPU, or of the CPU with the number of threads."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    return f'{cpu_name()}, {torch.get_num_threads()} threads'


def provenance(script: str, command: Sequence[str], device: str, **versions: str) -> str:
    """The command, date, device and versions of a measurement."""
    found = ', '.join(f'{name} {version}' for name, version in versions.items())
    return (
        f'`{shlex.join(["python", f"benchmarks/{script}", *command])}`, '
        f'{datetime.date.today()}, {device_name(device)}, {found}'
    )


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], num_left: int = 1) -> str:
    """A Markdown table. The first ``num_left`` columns are aligned left, the others right."""
    rule = ['---'] * num_left + ['---:'] * (len(columns) - num_left)
    return '\n'.join(f'| {" | ".join(row)} |' for row in (columns, rule, *rows)) + '\n'
