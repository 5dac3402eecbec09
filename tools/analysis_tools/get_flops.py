"""Count the parameters and multiply-accumulates of a config's model, for one image."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from locat_mm.analysis.complexity import METHOD, Complexity, measure_complexity
from locat_mm.checkpoint import trust_checkpoints
from locat_mm.cli.arguments import add_cfg_options
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f'{__doc__} {METHOD}')
    parser.add_argument('config', help='config file of mmpretrain or mmseg')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help='rows and columns of the image, or one number for both; by default the crop size of a '
        'segmentor, the test image size of a classifier',
    )
    parser.add_argument('--out', metavar='FILE.json', help='also write the numbers to this file')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape takes one or two positive numbers, got {args.shape}')
    if args.out and not args.out.endswith('.json'):
        parser.error(f'--out writes JSON, so its name must end in .json, got {args.out}')
    return args


def show(config: str, complexity: Complexity) -> None:
    """Print the table, one row per part of the model."""
    rows, columns = complexity.image_size
    table = Table()
    table.add_column('part')
    for header in ('parameters', 'trainable', 'GMACs'):
        table.add_column(header, justify='right', no_wrap=True)
    for name, cost in {**complexity.parts, 'total': complexity.total}.items():
        counts = (f'{cost.parameters:,}', f'{cost.trainable:,}', f'{cost.macs / 1e9:.4f}')
        table.add_row(name, *counts)
    console = Console(width=100)
    console.print(f'{config}, one image of {rows}×{columns} pixels', highlight=False)
    console.print(table)
    console.print(METHOD)


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    trust_checkpoints(False)
    image_size = (args.shape[0], args.shape[-1]) if args.shape else None
    complexity = measure_complexity(load_config(args.config, args.cfg_options), image_size)
    show(args.config, complexity)
    if args.out:
        content = dict(config=args.config, method=METHOD, **asdict(complexity))
        Path(args.out).write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    main()
