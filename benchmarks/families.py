"""What LocAt costs each family of backbones: images/s and peak memory beside the plain model.

The classifiers of configs/*/*_imagenet.py, forward in eval mode. Plain and LocAt take turns within
a round, so that a busy machine slows both; every number is a median over rounds. Memory is
measured in a process of its own for each model.
"""

import argparse
import datetime
import multiprocessing
import platform
import re
import shlex
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mmpretrain.models  # noqa: F401  before memory is measured
import timm
import torch
from torch import nn

from locat_mm.engine import load_config
from locat_mm.engine.complexity import METHOD, build_model, input_size, measure_complexity

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
NAMES = dict(vit='ViT', regvit='RegViT', ropevit='RoPEViT', jumbo='Jumbo', swin='Swin')
SIZES = ('tiny', 'small', 'base')
COLUMNS = (
    *('model', 'parameters', 'GMACs', 'images/s', 'plain / LocAt'),
    *('peak memory (MiB)', 'plain / LocAt'),
)


def config_paths(family: str, size: str) -> tuple[str, str]:
    """The plain and the LocAt config."""
    plain = CONFIGS / family / f'{family}_{size}_imagenet.py'
    return str(plain), str(CONFIGS / 'locat' / f'locat{family}_{size}_imagenet.py')


def prepare(path: str, batch_size: int, device: str) -> tuple[nn.Module, torch.Tensor]:
    """The classifier in eval mode and a batch of noise."""
    cfg = load_config(path)
    images = torch.randn(batch_size, 3, *input_size(cfg), device=device)
    return build_model(cfg).to(device).eval(), images


def images_per_second(paths: tuple[str, str], args: argparse.Namespace) -> list[list[float]]:
    """Images per second of both models, one number a round."""
    pairs = [prepare(path, args.batch_size, args.device) for path in paths]
    rates: list[list[float]] = [[], []]
    # The first round warms up.
    for _ in range(args.rounds + 1):
        for (model, images), found in zip(pairs, rates, strict=True):
            start = now(args.device)
            for _ in range(args.iterations):
                forward(model, images)
            found.append(args.batch_size * args.iterations / (now(args.device) - start))
    return [found[1:] for found in rates]


@torch.inference_mode()
def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(images, mode='tensor')


def now(device: str) -> float:
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(path: str, batch_size: int, device: str, threads: int) -> float:
    """MiB that the model and its forward pass take; to be called in a fresh process."""
    torch.set_num_threads(threads)
    start = resident('VmRSS')
    model, images = prepare(path, batch_size, device)
    for _ in range(2):
        forward(model, images)
    if device == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**20
    return resident('VmHWM') - start


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (the peak) of this process, in MiB."""
    # Not ru_maxrss, which a new process inherits from its parent.
    status = Path('/proc/self/status').read_text()
    found = re.search(rf'^{field}:\s+(\d+) kB$', status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) / 1024


def measure(family: str, size: str, args: argparse.Namespace) -> list[list[str]]:
    """Two rows of the table, plain and LocAt."""
    paths = config_paths(family, size)
    costs = [measure_complexity(load_config(path)).total for path in paths]
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        jobs = [
            pool.submit(peak_memory, path, args.batch_size, args.device, args.threads)
            for path in paths
        ]
        memory = [job.result() for job in jobs]
    plain, locat = images_per_second(paths, args)
    speed_ratio = statistics.median(a / b for a, b in zip(plain, locat, strict=True))
    rows = []
    for prefix, cost, rates, mib in zip(('', 'LocAt'), costs, (plain, locat), memory, strict=True):
        counts = [f'{cost.parameters:,}', f'{cost.macs / 1e9:.3f}']
        rate, ratios = f'{statistics.median(rates):.1f}', ['', '']
        if prefix:
            ratios = [f'{speed_ratio:.2f}', f'{memory[0] / mib:.2f}']
        name = f'{prefix}{NAMES[family]}-{size.capitalize()}'
        rows.append([name, *counts, rate, ratios[0], f'{mib:.0f}', ratios[1]])
    return rows


def header(args: argparse.Namespace) -> str:
    """What the numbers were measured on, and how."""
    memory = (
        'torch.cuda.max_memory_allocated'
        if args.device == 'cuda'
        else 'peak resident set (VmHWM) above that before the model was built'
    )
    return (
        f'`{shlex.join(["python", "benchmarks/families.py", *args.command])}`, '
        f'{datetime.date.today()}, {device_name(args.device)}, '
        f'torch {torch.__version__}, timm {timm.__version__}, float32, batches of '
        f'{args.batch_size}, median of {args.rounds} rounds of {args.iterations} batches. '
        f'Memory: {memory}, weights included. GMACs: {METHOD}\n'
    )


def device_name(device: str) -> str:
    if device == 'cuda':
        return torch.cuda.get_device_name()
    cpu = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.+)', cpu.read_text()) if cpu.exists() else None
    name = found[1] if found else platform.machine()
    return f'{name}, {torch.get_num_threads()} threads'


def markdown(rows: list[list[str]]) -> str:
    rule = ['---', *['---:'] * (len(COLUMNS) - 1)]
    return '\n'.join(f'| {" | ".join(row)} |' for row in ([*COLUMNS], rule, *rows)) + '\n'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--families', nargs='+', choices=NAMES, default=list(NAMES))
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=['tiny'])
    parser.add_argument('--batch-size', type=int, default=8, help='images in a batch')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--iterations', type=int, default=3, help='batches in a round')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='on the CPU')
    parser.add_argument('--out', default='work_dirs/families.md', help='the table goes there')
    parser.add_argument(
        '--smoke', action='store_true', help='check the wiring; the numbers mean nothing'
    )
    args = parser.parse_args(argv)
    for name in ('batch_size', 'rounds', 'iterations', 'threads'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be positive, got {getattr(args, name)}')
    if args.smoke:
        args.batch_size = args.rounds = args.iterations = 1
    args.command = sys.argv[1:] if argv is None else argv
    args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    pairs = [(family, size) for size in args.sizes for family in args.families]
    rows: list[list[str]] = []
    for index, (family, size) in enumerate(pairs, 1):
        print(f'[{index}/{len(pairs)}] {family}, {size} ...', flush=True)
        rows += measure(family, size, args)
        print(f'  plain / LocAt: speed {rows[-1][4]}, memory {rows[-1][6]}', flush=True)
    text = f'{header(args)}\n{markdown(rows)}'
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(f'\n{text}\nTable: {out}')


if __name__ == '__main__':
    main()
