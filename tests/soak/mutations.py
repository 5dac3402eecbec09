"""Break configs and checkpoints at random, and see what the tools make of them.

Half of the mutants are configs of the demo, half are checkpoints. Each is given to tools/train.py
(``load_from``, ``--resume``, ``init_cfg`` of the backbone) or tools/test.py, in a process forked
from this one. What is right is known without the code under test: from how the mutant was made and
what the models' weights are called. Every case ends as

* ``refused``: exit by an exception, with a message of ours right above the traceback; or
* ``runs``: a training step or a test has run, and before it weights, optimizer and schedule were
  those that the mutant holds; what was not loaded was named, key by key.

Anything else is a failure: code executed, partial load in silence, what is whole refused, no
message, nothing done, a crash or a hang.
"""

import argparse
import collections
import contextlib
import random
import shutil
import sysconfig
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from tests.support import ROOT

from .laboratory import Laboratory
from .verdicts import RIGHT

__all__ = ['show', 'try_mutants']


def _without_paths(text: str, folder: Path) -> str:
    """A log that does not depend on where everything lies."""
    for place in (folder, sysconfig.get_path('purelib'), ROOT, sysconfig.get_path('stdlib')):
        text = text.replace(f'{place}/', '')
    return text


def try_mutants(
    count: int, seed: int, laboratory: Laboratory, out: Path | None = None
) -> dict[tuple[str, str], int]:
    """Try mutants, half of them configs.

    Args:
        count: how many.
        seed: of all choices.
        laboratory: where; what failures printed is kept in its folder.
        out: the log, a line or two for each case.

    Returns:
        (subject, verdict) -> how many; only verdicts in ``RIGHT`` are right.
    """
    folder = laboratory.folder
    counts: collections.Counter = collections.Counter()
    with open(out, 'w') if out else contextlib.nullcontext() as log:
        for number in tqdm(range(count), desc='mutants', disable=None):
            rng = random.Random(f'{seed}/{number}')
            torch.manual_seed(number)
            attempt = laboratory.try_checkpoint if number % 2 else laboratory.try_config
            case, verdict, message = attempt(rng)
            kind = case.split(':')[0]
            counts[kind, verdict if verdict in RIGHT else 'FAILURE'] += 1
            line = f'{number:4} {case} -> {verdict}'
            if verdict not in RIGHT:
                kept = folder / f'output_{number}.txt'
                shutil.copy(folder / 'output.txt', kept)
                tqdm.write(f'{line} ({kept})')
            if log:
                text = line + (f'\n       {message}' if message else '')
                print(_without_paths(text, folder), file=log, flush=True)
    return dict(counts)


def show(counts: dict[tuple[str, str], int], console: Console) -> None:
    table = Table()
    table.add_column('mutant of')
    verdicts = (*RIGHT, 'FAILURE')
    for verdict in verdicts:
        table.add_column(verdict, justify='right')
    kinds = sorted({kind for kind, _ in counts})
    for kind in kinds:
        table.add_row(kind, *(str(counts.get((kind, verdict), 0)) for verdict in verdicts))
    totals = [sum(counts.get((kind, verdict), 0) for kind in kinds) for verdict in verdicts]
    table.add_row('all', *map(str, totals))
    console.print(table)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--count', type=int, default=600, help='mutants')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='log')
    parser.add_argument('--keep', type=Path, help='folder for what failures printed')
    args = parser.parse_args(argv)
    out = args.out.resolve() if args.out else None
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep.resolve() if args.keep else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        counts = try_mutants(args.count, args.seed, Laboratory(folder), out)
    show(counts, Console(width=100))
    print(f'{args.count} mutants of seed {args.seed} in {time.monotonic() - begin:.0f} s')
    if out:
        with open(out, 'a') as log:
            show(counts, Console(file=log, width=100))
    if any(verdict not in RIGHT for _, verdict in counts):
        raise SystemExit('there are failures')


if __name__ == '__main__':
    main()
