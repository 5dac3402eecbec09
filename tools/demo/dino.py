"""DINO on the embedded data, over seeds: train without labels, then ask what the teacher knows.

Every step is one call of the tools that a real run uses. The same questions are put to the models
as they are initialised, which is what a collapsed run would fall back to. An interrupted run
continues where it stopped.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from plans import DEMO, ROOT, Row
from rich.console import Console
from rich.table import Table
from run import call, digest, last_checkpoint, make_data, take_up

from locat_mm.engine.reporting import reports_errors

WORK_DIR = Path('work_dirs/demo_dino')
#: ``--smoke``: two epochs of a training set of 64 images
SMOKE = [
    *('train_cfg.max_epochs=2', 'train_cfg.val_interval=2'),
    *('train_dataloader.batch_size=16', 'train_dataloader.dataset.indices=64'),
]
#: One step of length 0, before which the teacher becomes the student.
UNTRAINED = [
    *('train_cfg.max_epochs=1', 'train_cfg.val_interval=2', 'param_scheduler=None'),
    *('optim_wrapper.optimizer.lr=0.0', 'train_dataloader.dataset.indices=64'),
]
QUALITY = {'linear': 'linear (%)', 'knn': 'k-NN (%)', 'in_context': 'in-context mIoU (%)'}
#: As DINO logs them, means of the last logging interval.
HEALTH = ('entropy', 'batch_entropy', 'kl', 'spread')


def config(name: str) -> Path:
    return ROOT / 'configs' / 'demo' / f'{name}.py'


def root(smoke: bool) -> Path:
    return WORK_DIR.with_name(f'{WORK_DIR.name}_smoke') if smoke else WORK_DIR


def run_tool(label: str, folder: Path, tool: str, *args: str) -> None:
    print(f'{label}, {folder.name} ...', flush=True)
    command = [sys.executable, str(ROOT / 'tools' / tool), *args, '--work-dir', str(folder)]
    call(f'{label}, {folder.name}', folder / f'{Path(tool).stem}.txt', command)


def ask(row: Row, label: str, work_dir: Path, checkpoint: str, options: list[str]) -> dict:
    """What the teacher in a checkpoint knows, in percent: see ``QUALITY``."""
    linear = work_dir / 'linear'
    chosen = [*options, f'model.backbone.init_cfg.checkpoint={checkpoint}']
    classifier = str(config(f'linear_{row.stem}_dino'))
    run_tool(label, linear, 'train.py', classifier, '--resume', '--cfg-options', *chosen)
    outs = {name: work_dir / f'{name}.json' for name in QUALITY}
    out = {name: ['--out', str(path)] for name, path in outs.items()}
    metrics = ['--out-item', 'metrics']
    run_tool(
        label,
        work_dir / 'linear_test',
        'test.py',
        *(classifier, last_checkpoint(linear), *out['linear'], *metrics),
    )
    run_tool(
        label,
        work_dir / 'knn',
        'test.py',
        *(str(config(f'dino/{row.stem}_dino')), checkpoint, *out['knn'], *metrics),
    )
    run_tool(
        label,
        work_dir / 'in_context',
        'analysis_tools/in_context.py',
        *(str(config(f'in_context_{row.stem}')), checkpoint, *out['in_context']),
        *('--prefix', 'teacher.module.backbone'),
    )
    keys = {'linear': 'accuracy/top1', 'knn': 'knn/top1_k20', 'in_context': 'mIoU'}
    return {name: json.loads(path.read_text())[keys[name]] for name, path in outs.items()}


def run_row(row: Row, seed: int, untrained: bool, smoke: bool) -> dict:
    """Train one model and ask its teacher, or continue where an earlier run stopped.

    Returns:
        what ``ask`` and, if it was trained, the log say.
    """
    label = f'{row.name}{", untrained" * untrained}, seed {seed}'
    kind = 'untrained' if untrained else 'trained'
    work_dir = root(smoke) / kind / row.stem / f'seed{seed}'
    names = (f'dino/{row.stem}_dino', f'linear_{row.stem}_dino', f'in_context_{row.stem}')
    scale = SMOKE if smoke else UNTRAINED if untrained else []
    earlier = take_up(label, work_dir, digest([config(name) for name in names], scale))
    if earlier is not None:
        return earlier
    folder = work_dir / 'dino'
    seeded = [f'randomness.seed={seed}']
    dino, options = str(config(names[0])), [*seeded, *scale]
    run_tool(label, folder, 'train.py', dino, '--resume', '--cfg-options', *options)
    linear = SMOKE if smoke else []
    result = ask(row, label, work_dir, last_checkpoint(folder), [*seeded, *linear])
    if not untrained:
        result |= read_health(folder)
    (work_dir / 'result.json').write_text(json.dumps(result))
    return result


def read_health(folder: Path) -> dict:
    """The last training line of a run's log: see ``HEALTH``."""
    lines = [
        json.loads(line)
        for file in sorted(folder.glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    last = [line for line in lines if 'kl' in line][-1]
    return {name: last[name] for name in HEALTH}


def show(table_of: dict[str, list[dict]]) -> None:
    """Print means ± sample deviations over seeds."""
    table = Table()
    table.add_column('model', no_wrap=True)
    for header in (*QUALITY.values(), *HEALTH):
        table.add_column(header, justify='right')
    for name, results in table_of.items():
        cells = []
        for digits, keys in ((1, QUALITY), (2, HEALTH)):
            for key in keys:
                values = [result[key] for result in results if key in result]
                cells.append(f'{np.mean(values):.{digits}f}' if values else '')
                if len(values) > 1:
                    cells[-1] += f' ± {np.std(values, ddof=1):.{digits}f}'
        table.add_row(name, *cells)
    Console(width=140).print(table)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument(
        '--smoke', action='store_true', help='check the wiring; the numbers mean nothing'
    )
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds must be positive, got {args.seeds}')
    return args


@reports_errors
def main() -> None:
    args = parse_args()
    make_data()
    kinds = (False,) if args.smoke else (False, True)
    jobs = [(row, seed, kind) for kind in kinds for seed in range(args.seeds) for row in DEMO]
    with ThreadPoolExecutor(max_workers=2) as pool:  # two models do not fill two cores alone
        try:
            results = list(pool.map(lambda job: run_row(*job, args.smoke), jobs))
        finally:
            pool.shutdown(cancel_futures=True)
    table: dict[str, list[dict]] = {}
    for (row, _, untrained), result in zip(jobs, results, strict=True):
        table.setdefault(f'{row.name}{", untrained" * untrained}', []).append(result)
    summary = root(args.smoke) / 'summary.json'
    summary.write_text(json.dumps(table, indent=2) + '\n')
    show(table)
    print(f'Seeds: {args.seeds}. Table: {summary}')


if __name__ == '__main__':
    main()
