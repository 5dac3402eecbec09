"""Estimate the time of exact nearest neighbours for k-NN and in-context evaluation at full size.

The program times one chunk of queries against one chunk of a bank of random unit vectors. It
multiplies this by the number of chunks of the whole search. The estimate does not include feature
extraction, loading and gathering. The defaults are k-NN on ImageNet with ViT-S. For in-context
segmentation of ADE20K at 224² use --queries 392000 --bank 3961160 --k 30.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from measure import alternate, device_name
from mmengine.device import get_device

from locat_mm.evaluation.nearest import nearest_neighbours, unit_rows


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--queries', type=int, default=50_000)
    parser.add_argument('--bank', type=int, default=1_281_167)
    parser.add_argument('--dim', type=int, default=384)
    parser.add_argument('--k', type=int, default=200)
    parser.add_argument('--query-chunk', type=int, default=1024, help='queries per chunk')
    parser.add_argument('--bank-chunk', type=int, default=65536, help='rows of the bank per chunk')
    parser.add_argument('--dtype', choices=['float32', 'float16'], default='float32')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, help="number, on a CPU; by default torch's choice")
    parser.add_argument('--device', choices=['cpu', 'cuda'], default=get_device())
    parser.add_argument('--out', metavar='FILE.json', help='also write the numbers to this file')
    args = parser.parse_args(argv)
    for name, value in vars(args).items():
        if isinstance(value, int) and value < 1:
            parser.error(f'--{name.replace("_", "-")} must be positive, got {value}')
    if args.k > min(args.bank, args.bank_chunk):
        parser.error(f'--k {args.k} is more than a chunk of the bank has')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    chunk = min(args.query_chunk, args.queries), min(args.bank_chunk, args.bank)
    queries, bank = (unit_rows(torch.randn(n, args.dim, device=args.device)) for n in chunk)
    bank = bank.to(getattr(torch, args.dtype))
    calls = {'search': lambda: nearest_neighbours(queries, bank, args.k)}
    seconds = alternate(calls, args.rounds, args.device)['search']
    pairs = args.queries / chunk[0] * args.bank / chunk[1]
    median = statistics.median(seconds)
    found = dict(
        queries=args.queries,
        bank=args.bank,
        dim=args.dim,
        k=args.k,
        dtype=args.dtype,
        device=device_name(args.device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        chunk=list(chunk),
        seconds_per_chunk=median,
        spread=[min(seconds), max(seconds)],
        chunks=pairs,
        extrapolated_seconds=median * pairs,
        bank_bytes=args.bank * args.dim * bank.element_size(),
    )
    print(
        f'{chunk[0]} queries × {chunk[1]} rows, {args.dim} features, k={args.k}: '
        f'{median:.3f} s (median of {args.rounds}, {min(seconds):.3f} to {max(seconds):.3f})\n'
        f'{args.queries} × {args.bank}: {pairs:.0f} times that, extrapolated to '
        f'{median * pairs / 60:.1f} min; the bank takes {found["bank_bytes"] / 1e9:.2f} GB\n'
        f'{found["device"]}, {found["threads"]} threads, torch {torch.__version__}'
    )
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
    main()
