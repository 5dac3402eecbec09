"""The main job end to end on embedded data: pretrain, freeze, decode, test, compare.

Every step is one call of the tools that a real run uses (tools/train.py, tools/test.py); only
the configs and the data are small. ``--ablation`` runs its rows over several seeds,
``--families`` every family for a few epochs through the dist tools. An interrupted run
continues where it stopped.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from figure import draw
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from locat_mm.checkpoint import read_state_dict

ROOT = Path(__file__).resolve().parents[2]
DATA = Path('data/digit_scenes')
PARTS = ('classify', 'segment')
#: what a log line of mmengine says of the progress
PROGRESS = re.compile(r'(Epoch|Iter)\((train|val|test)\)[ \[\]\d/]+|eta: [\d:]+|loss: [\d.]+')
#: ``--smoke``: a few updates, to see that everything is wired
SMOKE = {
    'classify': ['train_cfg.max_epochs=1', 'param_scheduler=None'],
    'segment': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2'],
}
#: ``--families``: two epochs and 150 iterations, the global batch on two processes
SHORT = {
    'classify': ['train_cfg.max_epochs=2', 'train_dataloader.batch_size=32'],
    'segment': [
        *('train_cfg.max_iters=150', 'train_cfg.val_interval=150'),
        *('param_scheduler.0.total_steps=150', 'train_dataloader.batch_size=8'),
    ],
}


@dataclass(frozen=True)
class Row:
    """One line of the table: its name and the stem of its two configs."""

    name: str
    stem: str


DEMO = (Row('ViT', 'vit'), Row('LocAtViT', 'locatvit'))
ABLATION = (
    Row('ViT', 'vit'),
    Row('ViT + GAug', 'ablation/vit_gaug'),
    Row('ViT + PRR', 'ablation/vit_prr'),
    Row('LocAtViT', 'locatvit'),
    Row('ViT + GAP', 'ablation/vit_gap'),
    Row('ViT - position embedding', 'ablation/vit_nopos'),
    Row('LocAtViT - position embedding', 'ablation/locatvit_nopos'),
)


FAMILIES = (
    *DEMO,
    *(
        Row(f'{locat}{family}', f'families/{locat}{family}'.lower())
        for family in ('RegViT', 'RoPEViT', 'Jumbo', 'Swin')
        for locat in ('', 'LocAt')
    ),
)


@dataclass(frozen=True)
class Plan:
    """A table: its rows, where they run, for how long and on how many processes."""

    rows: tuple[Row, ...]
    folder: str
    options: dict[str, list[str]] = field(default_factory=dict)
    processes: int = 1

    def command(self, tool: str, args: list[str]) -> list[str]:
        """``tool`` (``'train'`` or ``'test'``) with its arguments, as a user would call it."""
        if self.processes == 1:
            return [sys.executable, str(ROOT / 'tools' / f'{tool}.py'), *args]
        count = 2 if tool == 'test' else 1  # config and checkpoint, or the config
        script = str(ROOT / 'tools' / f'dist_{tool}.sh')
        return ['bash', script, *args[:count], str(self.processes), *args[count:]]


PLANS = {
    'demo': Plan(DEMO, 'demo'),
    'ablation': Plan(ABLATION, 'demo_ablation'),
    'families': Plan(FAMILIES, 'demo_families', SHORT, processes=2),
}


def call(label: str, log: Path, command: list[str]) -> None:
    """Run a tool; show its progress on one line in ten seconds, keep all of it in a log.

    Raises:
        SystemExit: if the tool fails, with the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    last_shown = time.monotonic()
    # One thread each: two models or two processes run side by side, see main.
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable}
    with (
        open(log, 'w', encoding='utf-8') as file,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            lines.append(line)
            found = [' '.join(m.group().split()) for m in PROGRESS.finditer(line)]
            if found and time.monotonic() - last_shown > 10:
                last_shown = time.monotonic()
                print(f'  {label}: {", ".join(found)}', flush=True)
    if process.returncode:
        sys.stderr.writelines(lines[-30:])
        raise SystemExit(f'{label} failed (exit {process.returncode}); its whole output: {log}')


def fingerprint(row: Row, plan: Plan, smoke: bool) -> str:
    """Changes with whatever a result depends on but the seed: configs, data, scale."""
    configs = [Config.fromfile(config_path(row, part)).to_dict() for part in PARTS]
    meta = (DATA / 'meta.json').read_text()
    scale = (plan.options, plan.processes, smoke)
    return hashlib.sha256(repr((configs, meta, scale)).encode()).hexdigest()


def config_path(row: Row, part: str) -> Path:
    return ROOT / 'configs' / 'demo' / f'{row.stem}_{part}.py'


def run_row(row: Row, work_dir: Path, seed: int, plan: Plan, smoke: bool) -> dict:
    """Pretrain and decode one model, or continue where an earlier run stopped.

    Returns:
        ``name``, ``top1`` and ``miou`` (percent), ``params`` (of the backbone) and
        ``seconds`` (wall time of training, both parts).
    """
    mark, result_file = work_dir / 'fingerprint', work_dir / 'result.json'
    current = fingerprint(row, plan, smoke)
    if work_dir.exists() and (not mark.exists() or mark.read_text() != current):
        print(f'{row.name}, seed {seed}: configs or data have changed, so it runs anew')
        shutil.rmtree(work_dir)
    if result_file.exists():
        print(f'{row.name}, seed {seed}: already done')
        return json.loads(result_file.read_text())
    work_dir.mkdir(parents=True, exist_ok=True)
    mark.write_text(current)
    metrics, checkpoints = {}, {}
    for part in PARTS:
        label = f'{row.name}, seed {seed}, {part}'
        print(f'{label} ...', flush=True)
        config, part_dir = str(config_path(row, part)), work_dir / part
        chosen = SMOKE if smoke else plan.options
        options = [f'randomness.seed={seed}', *chosen.get(part, ())]
        if part == 'segment':
            options.append(f'model.backbone.init_cfg.checkpoint={checkpoints["classify"]}')
        with added_to(work_dir / 'seconds'):
            call(
                label,
                part_dir / 'train.txt',
                plan.command(
                    'train',
                    [config, '--work-dir', str(part_dir), '--resume', '--cfg-options', *options],
                ),
            )
        checkpoints[part] = (part_dir / 'last_checkpoint').read_text().strip()
        out = part_dir / 'metrics.json'
        call(
            f'{label}, test',
            part_dir / 'test.txt',
            plan.command(
                'test',
                [
                    *(config, checkpoints[part], '--work-dir', str(part_dir / 'test')),
                    *('--out', str(out), '--out-item', 'metrics'),
                ],
            ),
        )
        metrics[part] = json.loads(out.read_text())
    result = dict(
        name=row.name,
        top1=round(metrics['classify']['accuracy/top1'], 2),
        miou=round(metrics['segment']['mIoU'], 2),
        params=count_parameters(checkpoints['classify']),
        seconds=round(float((work_dir / 'seconds').read_text()), 1),
    )
    result_file.write_text(json.dumps(result))
    return result


@contextmanager
def added_to(file: Path) -> Iterator[None]:
    """Add the time spent inside to the seconds in a file, also when interrupted."""
    before = float(file.read_text()) if file.exists() else 0.0
    start = time.monotonic()
    try:
        yield
    finally:
        file.write_text(str(before + time.monotonic() - start))


def count_parameters(checkpoint: str) -> int:
    """Parameters of the backbone in a checkpoint."""
    state = read_state_dict(checkpoint)
    return sum(value.numel() for key, value in state.items() if key.startswith('backbone.'))


def average(results: list[dict]) -> dict:
    """Mean and sample deviation of one row over its seeds."""
    summary = {key: results[0][key] for key in ('name', 'params')}
    for key in ('top1', 'miou', 'seconds'):
        values = [result[key] for result in results]
        summary[key] = round(float(np.mean(values)), 2)
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        summary[f'{key}_std'] = round(deviation, 2)
    return summary


def show(rows: list[dict]) -> None:
    """Print the table."""

    def cell(row: dict, key: str, digits: int) -> str:
        deviation = row.get(f'{key}_std')
        spread = '' if deviation is None else f' ± {deviation:.{digits}f}'
        return f'{row[key]:.{digits}f}{spread}'

    table = Table()
    table.add_column('model', no_wrap=True)
    for header in ('top-1 (%)', 'mIoU (%)', 'parameters', 'training (s)'):
        table.add_column(header, justify='right', no_wrap=True)
    for row in rows:
        quality = [cell(row, 'top1', 2), cell(row, 'miou', 2)]
        table.add_row(row['name'], *quality, f'{row["params"]:,}', cell(row, 'seconds', 0))
    Console(width=100).print(table)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--ablation', action='store_true', help='all rows, over several seeds')
    kind.add_argument('--families', action='store_true', help='every family, a few epochs each')
    parser.add_argument('--seeds', type=int, default=3, help='seeds of the ablation')
    parser.add_argument(
        '--smoke', action='store_true', help='check the wiring; the numbers mean nothing'
    )
    parser.add_argument('--fresh', action='store_true', help='discard what earlier runs left')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds must be positive, got {args.seeds}')
    return args


def main() -> None:
    args = parse_args()
    plan = PLANS['ablation' if args.ablation else 'families' if args.families else 'demo']
    work_dir = Path('work_dirs') / plan.folder
    if args.smoke:
        work_dir = work_dir.with_name(f'{work_dir.name}_smoke')
    if args.fresh:
        shutil.rmtree(work_dir, ignore_errors=True)
    converter = ROOT / 'tools' / 'dataset_converters' / 'digit_scenes.py'
    meta = DATA / 'meta.json'
    source = hashlib.sha256(converter.read_bytes()).hexdigest()
    if not meta.exists() or json.loads(meta.read_text())['source'] != source:
        subprocess.run([sys.executable, str(converter), '--out-dir', str(DATA)], check=True)
    rows = plan.rows
    seeds = range(args.seeds if args.ablation else 1)
    # Seeds outside, so that an early stop leaves whole tables. Two at a time: models this small
    # do not fill two cores alone.
    at_a_time = 1 if plan.processes > 1 else 2
    jobs = [(row, work_dir / row.stem / f'seed{seed}', seed) for seed in seeds for row in rows]
    with ThreadPoolExecutor(max_workers=at_a_time) as pool:
        try:
            done = list(pool.map(lambda job: run_row(*job, plan, args.smoke), jobs))
        finally:
            pool.shutdown(cancel_futures=True)
    results = {row: done[index :: len(rows)] for index, row in enumerate(rows)}
    if args.ablation:
        summary = [dict(average(results[row]), seeds=len(seeds)) for row in rows]
    else:
        summary = [results[row][0] for row in rows]
    summary_file = work_dir / 'summary.json'
    summary_file.write_text(json.dumps(summary, indent=2) + '\n')
    show(summary)
    print(
        f'Models at a time: {at_a_time}, processes each: {plan.processes}, threads of a process: '
        f'1. Table: {summary_file}'
    )
    if plan.rows is DEMO:
        models = {
            row.name: (
                config_path(row, 'segment'),
                work_dir / row.stem / 'seed0' / 'segment',
            )
            for row in rows
        }
        print(f'Picture: {draw(models, DATA / "scenes", work_dir / "demo.png")}')


if __name__ == '__main__':
    main()
