"""Train DINO on the embedded data over several seeds, then evaluate the features of the teacher.

Every step calls a tool that a real run uses. The untrained models are evaluated in the same way,
for comparison: the features of a collapsed run would be no better. An interrupted run continues
where it stopped.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from experiments import DEMO, ROOT, Row
from rich.console import Console
from rich.table import Table
from run import (
    digest,
    last_checkpoint,
    make_data,
    parse_scale,
    prepare_run,
    run_command,
    write_result,
)

from locat_mm.cli.reporting import reports_errors

WORK_DIR = Path('work_dirs/demo_dino')
#: ``--smoke``: two epochs of a training set of 64 images
SMOKE = [
    *('train_cfg.max_epochs=2', 'train_cfg.val_interval=2'),
    *('train_dataloader.batch_size=16', 'train_dataloader.dataset.indices=64'),
]
#: One epoch with learning rate 0. At its start the student is copied to the teacher.
UNTRAINED = [
    *('train_cfg.max_epochs=1', 'train_cfg.val_interval=2', 'param_scheduler=None'),
    *('optim_wrapper.optimizer.lr=0.0', 'train_dataloader.dataset.indices=64'),
]
QUALITY = {'linear': 'linear (%)', 'knn': 'k-NN (%)', 'in_context': 'in-context mIoU (%)'}
#: Values that DINO logs; means over the last logging interval. See docs/features.md.
HEALTH = ('entropy', 'batch_entropy', 'kl', 'spread')


def config(name: str) -> Path:
    return ROOT / 'configs' / 'demo' / f'{name}.py'


def root(smoke: bool) -> Path:
    return WORK_DIR.with_name(f'{WORK_DIR.name}_smoke') if smoke else WORK_DIR


def run_tool(label: str, folder: Path, tool: str, *args: str) -> None:
    """Run a tool with ``--work-dir folder``."""
    print(f'{label}, {folder.name} ...', flush=True)
    command = [sys.executable, str(ROOT / 'tools' / tool), *args, '--work-dir', str(folder)]
    run_command(f'{label}, {folder.name}', folder / f'{Path(tool).stem}.txt', command)


def run_row(row: Row, seed: int, untrained: bool, smoke: bool) -> dict:
    """Train one model and evaluate its teacher, or continue where an earlier run stopped.

    Returns:
        the results of ``train`` and ``evaluate``.
    """
    label = f'{row.name}{", untrained" * untrained}, seed {seed}'
    work_dir = root(smoke) / ('untrained' if untrained else 'trained') / row.stem / f'seed{seed}'
    seeded = [f'randomness.seed={seed}']
    scale = SMOKE if smoke else UNTRAINED if untrained else []
    health = train(row, label, work_dir / 'dino', [*seeded, *scale])
    return evaluate(row, label, work_dir, [*seeded, *(SMOKE if smoke else [])]) | health


def evaluation_configs(row: Row) -> list[Path]:
    """The configs of linear, k-NN and in-context evaluation."""
    names = (f'linear_{row.stem}_dino', f'dino/{row.stem}_dino', f'in_context_{row.stem}')
    return [config(name) for name in names]


def train(row: Row, label: str, folder: Path, options: list[str]) -> dict:
    """Train DINO without labels.

    Returns:
        the values of ``HEALTH`` in the last training line of the log.
    """
    dino = config(f'dino/{row.stem}_dino')
    earlier = prepare_run(f'{label}, trained', folder, digest([dino], options))
    if earlier is not None:
        return earlier
    run_tool(label, folder, 'train.py', str(dino), '--resume', '--cfg-options', *options)
    return write_result(folder, read_health(folder))


def read_health(folder: Path) -> dict:
    """The values of ``HEALTH`` in the last training line. A resumed run has several log files."""
    lines = [
        json.loads(line)
        for file in sorted(folder.glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    last = [line for line in lines if 'kl' in line][-1]
    return {name: last[name] for name in HEALTH}


def evaluate(row: Row, label: str, work_dir: Path, options: list[str]) -> dict:
    """Evaluate the teacher that ``train`` saved in ``work_dir / 'dino'``.

    Returns:
        the values of ``QUALITY``, in percent.
    """
    folder = work_dir / 'evaluation'
    linear, knn, in_context = configs = evaluation_configs(row)
    trained_as = (work_dir / 'dino' / 'fingerprint').read_text()
    earlier = prepare_run(f'{label}, evaluation', folder, digest(configs, options, trained_as))
    if earlier is not None:
        return earlier
    teacher = last_checkpoint(work_dir / 'dino')
    chosen = [*options, f'model.backbone.init_cfg.checkpoint={teacher}']
    classifier = folder / 'linear'
    run_tool(label, classifier, 'train.py', str(linear), '--resume', '--cfg-options', *chosen)

    outs = {name: folder / f'{name}.json' for name in QUALITY}
    metrics = ['--out-item', 'metrics', '--out']
    tested = [str(linear), last_checkpoint(classifier), *metrics, str(outs['linear'])]
    run_tool(label, folder / 'linear_test', 'test.py', *tested)
    tested = [str(knn), teacher, *metrics, str(outs['knn'])]
    run_tool(label, folder / 'knn', 'test.py', *tested)
    segmented = [str(in_context), teacher, '--prefix', 'teacher.module.backbone']
    out = ['--out', str(outs['in_context'])]
    run_tool(label, folder / 'in_context', 'analysis_tools/in_context.py', *segmented, *out)
    keys = {'linear': 'accuracy/top1', 'knn': 'knn/top1_k20', 'in_context': 'mIoU'}
    return write_result(
        folder, {name: json.loads(path.read_text())[keys[name]] for name, path in outs.items()}
    )


def show(table_of: dict[str, list[dict]]) -> None:
    """Print the table: mean ± sample standard deviation over the seeds."""
    table = Table()
    table.add_column('model', no_wrap=True)
    for header in (*QUALITY.values(), *HEALTH):
        table.add_column(header, justify='right')
    for name, results in table_of.items():
        cells = []
        for digits, keys in ((1, QUALITY), (2, HEALTH)):
            for key in keys:
                values = [result[key] for result in results]
                cells.append(f'{np.mean(values):.{digits}f}')
                if len(values) > 1:
                    cells[-1] += f' ± {np.std(values, ddof=1):.{digits}f}'
        table.add_row(name, *cells)
    Console(width=140).print(table)


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_scale(argparse.ArgumentParser(description=__doc__), argv)
    make_data()
    kinds = (False,) if args.smoke else (False, True)
    jobs = [(row, seed, kind) for kind in kinds for seed in range(args.seeds) for row in DEMO]
    with ThreadPoolExecutor(max_workers=2) as pool:  # one model does not use two cores
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
