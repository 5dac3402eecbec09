"""Kill training at random moments, resume it, and compare its end with a run that nobody killed.

Small demo runs (epoch loop: pretraining; iteration loop: decoding) with drop path, Mixup and random
flips, in one process and in two. Each is killed and resumed until it ends:

* ``kill all``: SIGKILL to the whole process group, the workers of data loaders included;
* ``kill in save``: the same from within a save, before a chosen sync, renaming or removal; a file
  that is not synced yet is cut to a part of its size;
* ``kill one``: SIGKILL to one of two processes; the other must end by itself;
* ``term all``, ``term one``: SIGTERM, upon which training saves and exits with 143.

The state at the end must have the bits of the uninterrupted run: weights, optimizer, schedule,
history of the losses, best score. Every run is forked from this process, which has imported
everything; first, ``--tools N`` kills go through tools/train.py and N through tools/dist_train.sh.
"""

import argparse
import collections
import gc
import itertools
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .attempts import Forked, Tool
from .runs import Plan
from .states import differences, last_checkpoint, write_data

#: Of loop, processes and workers, in turn.
RUNS = [
    (loop, world, workers)
    for workers, world, loop in itertools.product((2, 0), (1, 2), ('epoch', 'iteration'))
]
#: Chances of the ways to die, by the number of processes.
WAYS = {
    1: {'kill all': 0.5, 'kill in save': 0.3, 'term all': 0.2},
    2: {'kill all': 0.3, 'kill in save': 0.3, 'kill one': 0.15, 'term all': 0.15, 'term one': 0.1},
}
TOOL_WAYS = {'kill all': 0.6, 'term all': 0.2, 'term one': 0.2}
#: Exit codes: saved upon SIGTERM; met by SIGKILL.
SAVED, KILLED = 128 + signal.SIGTERM, -signal.SIGKILL


class Campaign:
    """Runs, their kills and what came of them.

    Args:
        folder: of data, checkpoints and logs.
        seed: of ways and moments.
        out: the log.
        way: the only way to die; by default all, by their chances.
    """

    def __init__(self, folder: Path, seed: int, out: Path | None, way: str | None = None) -> None:
        self.folder = folder
        self.way = way
        self.rng = np.random.default_rng(seed)
        self.out = out
        self.wholes: dict[tuple, tuple[Path, float]] = {}
        self.counts: collections.Counter = collections.Counter()
        self.problems: list[str] = []
        gc.collect()
        gc.freeze()  # or each fork would go through all that is imported, to collect garbage
        if out is not None:
            out.write_text('')
        write_data(folder)

    def log(self, text: str) -> None:
        tqdm.write(text)
        if self.out is not None:
            with self.out.open('a') as file:
                print(text, file=file)

    def fail(self, text: str) -> None:
        self.problems.append(text)
        self.log(f'PROBLEM: {text}')

    def whole(self, loop: str, world: int, kind: type) -> tuple[Path, float]:
        """The last checkpoint of a run that nobody kills, and the seconds that it takes."""
        key = loop, world, kind
        if key not in self.wholes:
            name = f'whole_{loop}_{world}_{kind.__name__.lower()}'
            attempt = kind(Plan(loop, world, 2, self.folder / name), resume=False)
            if any(attempt.wait()):
                raise RuntimeError(f'a run that nobody killed failed: {attempt.log.read_text()}')
            seconds = time.monotonic() - attempt.begin
            self.wholes[key] = last_checkpoint(attempt.plan.work_dir), seconds
            self.log(f'not killed: {loop}, {world} process(es), {kind.__name__}: {seconds:.1f} s')
        return self.wholes[key]

    def run(self, loop: str, world: int, workers: int, max_kills: int, kind: type) -> None:
        """One run, killed up to ``max_kills`` times and resumed until it ends."""
        expected, seconds = self.whole(loop, world, kind)
        self.counts['runs'] += 1
        number = self.counts['runs']
        plan = Plan(loop, world, workers, self.folder / f'run_{number}')
        kills, codes = 0, [KILLED]
        while kills < max_kills:
            codes, was_hit = self.attempt(plan, seconds, kind)
            if not was_hit:
                break
            kills += 1
        else:
            codes = kind(plan).wait()
        if any(codes):
            self.fail(f'run {number} ended with {codes}: {plan.work_dir}.log')
            return
        found = differences(last_checkpoint(plan.work_dir), expected)
        self.counts['runs bit-equal'] += not found
        self.counts['resumed'] += kills
        self.log(
            f'      run {number}: {kills} kills, {f"differs in {found}" if found else "bit-equal"}'
        )
        if found:
            self.fail(f'run {number} differs')

    def attempt(self, plan: Plan, seconds: float, kind: type) -> tuple[list[int], bool]:
        """Kill once; returns the exit codes, and False if the run ended before."""
        ways = WAYS[plan.world] if kind is Forked else TOOL_WAYS
        way = self.way or str(self.rng.choice([*ways], p=[*ways.values()]))
        rank = int(self.rng.integers(plan.world)) if 'one' in way else None
        moment = self.rng.uniform(0, seconds)
        where: list[str] = []
        if way == 'kill in save':
            attempt = kind(plan, trip=int(self.rng.integers(1, 16)))
            codes = attempt.wait()
            where = re.findall(r'tripped (at .*)', attempt.said())
            phase = 'saving' if where else None
        else:
            attempt = kind(plan)
            # Starting is most of a tool's time, and is not what is to be met.
            while kind is Tool and attempt.poll() and attempt.phase() == 'start':
                moment = time.monotonic() - attempt.begin + self.rng.uniform(0, 2)
                time.sleep(0.02)
            by = signal.SIGKILL if 'kill' in way else signal.SIGTERM
            phase = attempt.strike_at(moment, by, rank)
            if phase == 'start' and rank is not None:  # the rest waits for it; a launcher ends it
                time.sleep(0.1)
                attempt.strike(signal.SIGTERM, None)
            codes = attempt.wait()
        if phase is None or not any(codes):
            return codes, False
        took = time.monotonic() - attempt.begin
        reached, resumed = attempt.numbers()
        for what in ('kills', way, f'in {phase}', f'{plan.world} process(es)'):
            self.counts[what] += 1
        self.log(
            f'{self.counts["kills"]:4}  {plan.loop:9} loop  {plan.world} process(es)  '
            f'{plan.workers} workers  {way:12}  {took:5.1f} s  in {phase:10}  '
            f'iteration {resumed:2} to {reached:2}  exits {codes}  {"".join(where)}'
        )
        # Before the first iteration some process may not listen yet, and after the last one no
        # process needs the other.
        if kind is Forked and resumed < reached < 12:
            saves = attempt.said().count('SIGTERM: saved')
            if 'term' in way and ({*codes} != {SAVED} or saves != 1):
                self.fail(f'SIGTERM in {phase}: {saves} saves, exits {codes}: {attempt.log}')
            if way == 'kill one' and 0 in codes:
                self.fail(f'one process ended well without the other: {attempt.log}')
        return codes, True


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=200, help='how many at least')
    parser.add_argument('--per-run', type=int, default=8, help='at most, of one run')
    parser.add_argument('--tools', type=int, default=0, help='more, at most, through each tool')
    parser.add_argument('--seed', type=int, default=0, help='of ways and moments')
    parser.add_argument('--way', choices=[*WAYS[1]], help='the only one; by default all')
    parser.add_argument('--out', type=Path, help='the log')
    parser.add_argument('--work-dir', type=Path, help='checkpoints and logs; by default a new one')
    options = parser.parse_args(args)
    out = None if options.out is None else options.out.resolve()
    folder = options.work_dir or Path(tempfile.mkdtemp(prefix='kills_'))
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    campaign = Campaign(folder.resolve(), options.seed, out, options.way)
    campaign.log(
        f'{time.strftime("%Y-%m-%d")}, torch {torch.__version__} on {os.cpu_count()} CPU cores: '
        f'kills.py --kills {options.kills} --per-run {options.per_run} --tools {options.tools} '
        f'--seed {options.seed}'
    )
    counts = campaign.counts
    with tqdm(total=options.kills + 2 * options.tools, unit='kill', mininterval=1) as bar:
        for loop, world in (('iteration', 1), ('epoch', 2)) if options.tools else ():
            campaign.run(loop, world, 2, options.tools, Tool)
        tooled = counts['kills']
        for loop, world, workers in itertools.cycle(RUNS):
            left = options.kills - counts['kills'] + tooled
            if left <= 0:
                break
            campaign.run(loop, world, workers, min(left, options.per_run), Forked)
            bar.update(counts['kills'] - bar.n)
    campaign.log('\nsummary')
    for what, count in counts.most_common():
        campaign.log(f'{count:6}  {what}')
    campaign.log(f'{len(campaign.problems):6}  problems')
    return bool(campaign.problems)


if __name__ == '__main__':
    sys.exit(main())
