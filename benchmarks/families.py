"""Measure images/s and peak memory of each family of backbones, plain and with LocAt.

The models are the classifiers of configs/*/*_imagenet.py, in eval mode, forward pass only. The
plain model and the one with LocAt run in turn within a round, so other load on the machine affects
both. Every number is a median over rounds. Memory is measured in a separate process per model.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

import mmpretrain.models  # noqa: F401  before memory is measured
import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))  # for tests that load this file by its path

from measure import (
    MEMORY,
    alternate,
    in_fresh_processes,
    markdown,
    median_ratio,
    peak_memory,
    provenance,
)

from locat_mm.analysis.complexity import METHOD, input_size, measure_complexity
from locat_mm.config import load_config
from locat_mm.models.building import build_model

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
NAMES = dict(vit='ViT', regvit='RegViT', ropevit='RoPEViT', jumbo='Jumbo', swin='Swin')
SIZES = ('tiny', 'small', 'base')
COLUMNS = (
    *('model', 'parameters', 'GMACs', 'images/s', 'plain / LocAt'),
    *('peak memory (MiB)', 'plain / LocAt'),
)


def config_paths(family: str, size: str) -> tuple[str, str]:
    """The paths of the plain config and of the LocAt config."""
    plain = CONFIGS / family / f'{family}_{size}_imagenet.py'
    return str(plain), str(CONFIGS / 'locat' / f'locat{family}_{size}_imagenet.py')


def prepare(path: str, batch_size: int, device: str) -> tuple[nn.Module, torch.Tensor]:
    """Build the classifier in eval mode and a batch of random images."""
    cfg = load_config(path)
    images = torch.randn(batch_size, 3, *input_size(cfg), device=device)
    return build_model(cfg).to(device).eval(), images


def prepare_forward(path: str, batch_size: int, device: str) -> partial[torch.Tensor]:
    return partial(forward, *prepare(path, batch_size, device))


@torch.inference_mode()
def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(images, mode='tensor')


def measure(family: str, size: str, args: argparse.Namespace) -> list[list[str]]:
    """Measure two rows of the table: plain and LocAt."""
    paths = config_paths(family, size)
    costs = [measure_complexity(load_config(path)).total for path in paths]
    settings = (args.batch_size, args.device)
    jobs = [(prepare_forward, (path, *settings), args.device, args.threads) for path in paths]
    memory = in_fresh_processes(peak_memory, jobs)
    calls = {path: prepare_forward(path, *settings) for path in paths}
    times = alternate(calls, args.rounds, args.device, args.iterations)
    plain, locat = (times[path] for path in paths)
    speed_ratio = median_ratio(locat, plain)
    rows = []
    for prefix, cost, seconds, mib in zip(
        ('', 'LocAt'), costs, (plain, locat), memory, strict=True
    ):
        counts = [f'{cost.parameters:,}', f'{cost.macs / 1e9:.3f}']
        rate = f'{statistics.median(args.batch_size / s for s in seconds):.1f}'
        ratios = ['', '']
        if prefix:
            ratios = [f'{speed_ratio:.2f}', f'{memory[0] / mib:.2f}']
        name = f'{prefix}{NAMES[family]}-{size.capitalize()}'
        rows.append([name, *counts, rate, ratios[0], f'{mib:.0f}', ratios[1]])
    return rows


def header(args: argparse.Namespace) -> str:
    """State command, device, versions and method of the measurement."""
    found = provenance(
        'families.py', args.command, args.device, torch=torch.__version__, timm=timm.__version__
    )
    return (
        f'{found}, float32, batches of {args.batch_size}, median of {args.rounds} rounds of '
        f'{args.iterations} batches. Memory: {MEMORY[args.device]}, weights included. '
        f'GMACs: {METHOD}\n'
    )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--families', nargs='+', choices=NAMES, default=list(NAMES))
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=['tiny'])
    parser.add_argument('--batch-size', type=int, default=8, help='images per batch')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--iterations', type=int, default=3, help='batches per round')
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='number, on the CPU'
    )
    parser.add_argument('--out', default='work_dirs/families.md', help='file of the table')
    parser.add_argument(
        '--smoke', action='store_true', help='only check that it runs; the numbers mean nothing'
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
    text = f'{header(args)}\n{markdown(COLUMNS, rows)}'
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(f'\n{text}\nTable: {out}')


if __name__ == '__main__':
    main()
