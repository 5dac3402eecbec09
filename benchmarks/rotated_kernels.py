"""LocAtViT with rotated kernels against kernels along the axes, as a classifier of 1,000 classes.

Both models run in turn within a round, in one process; printed are medians over the rounds, and the
median of the ratio within a round. On a machine that other jobs use, ``--cpu-time --threads 1``
counts the processor's time of this process and not that of the others.

``python benchmarks/rotated_kernels.py --rounds 15``
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from attention_cases import MODES, Case
from attention_model import Classifier, add_arguments, make_call
from torch import nn

__all__ = ['main']

_KERNELS = ('axis', 'rotated')


def prepare(kernel: str, case: Case) -> Callable[[], None]:
    """The call that is timed: the forward pass of a batch, or one training step."""
    model = Classifier(case, kernel)
    for name, parameter in model.named_parameters():
        if '.gaug.correlation.' in name:
            nn.init.normal_(parameter, std=0.1)
    return make_call(model, torch.randn(case.batch_size, 3, case.size, case.size), case.mode)


def measure(
    calls: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Milliseconds of every call in every round; the order changes from round to round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for number in range(rounds):
        for name in list(calls) if number % 2 else reversed(calls):
            start = clock()
            calls[name]()
            times[name].append(1e3 * (clock() - start))
    return times


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument('--cpu-time', action='store_true', help='not the time on the wall')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    print('| mode | axis (ms) | rotated (ms) | rotated / axis |')
    print('| --- | ---: | ---: | ---: |')
    for mode in MODES:
        settings = args.arch, args.size, args.batch_size, 'cpu', torch.float32
        case = Case('model', 'chunked', mode, *settings)
        calls = {name: prepare(name, case) for name in _KERNELS}
        times = measure(calls, args.rounds, clock)
        axis, rotated = (times[name] for name in _KERNELS)
        ratio = statistics.median(r / a for r, a in zip(rotated, axis, strict=True))
        medians = ' | '.join(f'{statistics.median(x):.1f}' for x in (axis, rotated))
        print(f'| {mode} | {medians} | {ratio:.3f} |', flush=True)


if __name__ == '__main__':
    main()
