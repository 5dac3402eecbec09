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
from attention_model import NUM_CLASSES, make_call
from torch import Tensor, nn

from locat_mm.models import LocAtViT, PatchRepresentationRefinement

__all__ = ['main']

_KERNELS = ('axis', 'rotated')


class Classifier(nn.Module):
    """Backbone, PRR and a linear head: ``[B, 3, H, W]`` to ``[B, classes]``."""

    def __init__(self, arch: str, size: int, kernel: str) -> None:
        super().__init__()
        options = dict(img_size=size, patch_size=16, out_type='raw', kernel=kernel)
        self.backbone = LocAtViT(arch, **options)
        self.neck = PatchRepresentationRefinement(LocAtViT.ARCHS[arch]['num_heads'])
        self.head = nn.Linear(LocAtViT.ARCHS[arch]['embed_dim'], NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(images))[-1])


def prepare(kernel: str, mode: str, arch: str, size: int, batch_size: int) -> Callable[[], None]:
    """The call that is timed: the forward pass of a batch, or one training step."""
    model = Classifier(arch, size, kernel)
    for name, parameter in model.named_parameters():
        if '.gaug.correlation.' in name:
            nn.init.normal_(parameter, std=0.1)
    return make_call(model, torch.randn(batch_size, 3, size, size), mode)


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
    parser.add_argument('--arch', default='tiny', choices=list(LocAtViT.ARCHS))
    parser.add_argument('--size', type=int, default=224, help='pixels')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--cpu-time', action='store_true', help='not the time on the wall')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    print('| mode | axis (ms) | rotated (ms) | rotated / axis |')
    print('| --- | ---: | ---: | ---: |')
    for mode in ('forward', 'training'):
        settings = mode, args.arch, args.size, args.batch_size
        calls = {name: prepare(name, *settings) for name in _KERNELS}
        times = measure(calls, args.rounds, clock)
        axis, rotated = (times[name] for name in _KERNELS)
        ratio = statistics.median(r / a for r, a in zip(rotated, axis, strict=True))
        medians = ' | '.join(f'{statistics.median(x):.1f}' for x in (axis, rotated))
        print(f'| {mode} | {medians} | {ratio:.3f} |', flush=True)


if __name__ == '__main__':
    main()
