"""The main job end to end on embedded data: pretrain, freeze, decode, test, compare.

Every step is one call of the tools that a real run uses (tools/train.py, tools/test.py,
tools/analysis_tools); only the configs and the data are small. ``--ablation`` runs its rows over
several seeds, ``--families`` every family for a few epochs through the dist tools, ``--attach``
puts LocAt into the ViT that the demo pretrained. An interrupted run continues where it stopped.
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
from pathlib import Path

from figure import draw
from mmengine.config import Config
from plans import PLANS, ROOT, SMOKE, Plan, Row
from table import average, show

from locat_mm.analysis.gaussians import draw_gaussians
from locat_mm.checkpoint import read_state_dict
from locat_mm.cli.reporting import reports_errors

DATA = Path('data/digit_scenes')
PARTS = ('classify', 'segment')
#: what a log line of mmengine says of the progress
PROGRESS = re.compile(r'(Epoch|Iter)\((train|val|test)\)[ \[\]\d/]+|eta: [\d:]+|loss: [\d.]+')


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


def make_data() -> None:
    """Write digit_scenes where this version of its converter has not yet."""
    converter = ROOT / 'tools' / 'dataset_converters' / 'digit_scenes.py'
    meta = DATA / 'meta.json'
    source = hashlib.sha256(converter.read_bytes()).hexdigest()
    if not meta.exists() or json.loads(meta.read_text())['source'] != source:
        subprocess.run([sys.executable, str(converter), '--out-dir', str(DATA)], check=True)


def fingerprint(row: Row, plan: Plan, smoke: bool) -> str:
    """Changes with whatever a result depends on but the seed: configs, data, scale."""
    configs = [config_path(row, part) for part in PARTS]
    return digest(configs, plan.options, plan.processes, smoke)


def digest(configs: list[Path], *scale: object) -> str:
    """Changes with configs, data and whatever else is handed in."""
    contents = [Config.fromfile(path).to_dict() for path in configs]
    meta = (DATA / 'meta.json').read_text()
    return hashlib.sha256(repr((contents, meta, scale)).encode()).hexdigest()


def take_up(label: str, work_dir: Path, current: str) -> dict | None:
    """Make a run's folder ready to go on; empty it if it is of another ``digest``.

    Returns:
        the result, if the run is already done.
    """
    mark, result_file = work_dir / 'fingerprint', work_dir / 'result.json'
    if work_dir.exists() and (not mark.exists() or mark.read_text() != current):
        print(f'{label}: configs or data have changed, so it runs anew')
        shutil.rmtree(work_dir)
    if result_file.exists():
        print(f'{label}: already done')
        return json.loads(result_file.read_text())
    work_dir.mkdir(parents=True, exist_ok=True)
    mark.write_text(current)
    return None


def finish(work_dir: Path, result: dict) -> dict:
    """Mark the run in a folder as done; returns its result."""
    (work_dir / 'result.json').write_text(json.dumps(result))
    return result


def config_path(row: Row, part: str) -> Path:
    return ROOT / 'configs' / 'demo' / f'{row.stem}_{part}.py'


def in_context_config(row: Row) -> Path:
    return ROOT / 'configs' / 'demo' / f'in_context_{row.stem}.py'


def look_at_features(row: Row, plan: Plan, smoke: bool) -> dict:
    """What the pretrained features of seed 0 know without any further training.

    Returns:
        ``knn`` (top-1 of 20 neighbours) and ``in_context`` (mIoU), percent.
    """
    work_dir = plan.work_dir(row, 0, smoke)
    checkpoint = last_checkpoint(work_dir / 'classify')
    classifier, in_context = map(str, (config_path(row, 'classify'), in_context_config(row)))
    results = {}
    for name, key, args in (
        ('knn', 'knn/top1_k20', [classifier, checkpoint, '--k', '20']),
        ('in_context', 'mIoU', [in_context, checkpoint, '--prefix', 'backbone']),
    ):
        part_dir = work_dir / name
        out = part_dir / 'metrics.json'
        args += ['--work-dir', str(part_dir), '--out', str(out)]
        command = plan.command(f'analysis_tools/{name}', args)
        call(f'{row.name}, {name}', part_dir / 'test.txt', command)
        results[name] = round(json.loads(out.read_text())[key], 2)
    return results


def run_row(row: Row, seed: int, plan: Plan, smoke: bool) -> dict:
    """Pretrain and decode one model, or continue where an earlier run stopped.

    Returns:
        ``name``, ``top1`` and ``miou`` (percent), ``params`` (of the backbone) and
        ``seconds`` (wall time of training, both parts).
    """
    work_dir = plan.work_dir(row, seed, smoke)
    earlier = take_up(f'{row.name}, seed {seed}', work_dir, fingerprint(row, plan, smoke))
    if earlier is not None:
        return earlier
    metrics, checkpoints = {}, {}
    for part in PARTS:
        label = f'{row.name}, seed {seed}, {part}'
        print(f'{label} ...', flush=True)
        config, part_dir = str(config_path(row, part)), work_dir / part
        chosen = SMOKE if smoke else plan.options
        options = [f'randomness.seed={seed}', *chosen.get(part, ())]
        if part == 'classify' and row.start is not None:
            start = last_checkpoint(plan.work_dir(row.start, seed, smoke) / part)
            options.append(f'model.init_cfg.checkpoint={start}')
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
        checkpoints[part] = last_checkpoint(part_dir)
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
    return finish(work_dir, result)


def draw_gaussians_of(row: Row, plan: Plan, smoke: bool) -> None:
    """What GAug learned in pretraining, over one scene."""
    checkpoint = last_checkpoint(plan.work_dir(row, 0, smoke) / 'classify')
    scene = min((DATA / 'scenes' / 'images' / 'validation').glob('*.png'))
    out = plan.root(smoke) / 'kernels.png'
    draw_gaussians(str(config_path(row, 'classify')), checkpoint, str(scene), str(out))
    print(f'Kernels of {row.name}: {out}')


def last_checkpoint(folder: Path) -> str:
    return (folder / 'last_checkpoint').read_text().strip()


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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--ablation', action='store_true', help='all rows, over several seeds')
    kind.add_argument('--families', action='store_true', help='every family, a few epochs each')
    kind.add_argument('--attach', action='store_true', help="LocAt into the demo's trained ViT")
    parser.add_argument('--fresh', action='store_true', help='discard what earlier runs left')
    return parse_scale(parser, argv)


def parse_scale(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> argparse.Namespace:
    """Parse the command line, to which options for the size of a demo are added."""
    parser.add_argument('--seeds', type=int, default=3, help='how many, where seeds are averaged')
    parser.add_argument(
        '--smoke', action='store_true', help='check the wiring; the numbers mean nothing'
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f'--seeds must be positive, got {args.seeds}')
    return args


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    chosen = [name for name in ('ablation', 'families', 'attach') if getattr(args, name)]
    plan = PLANS[chosen[0] if chosen else 'demo']
    work_dir = plan.root(args.smoke)
    if args.fresh:
        shutil.rmtree(work_dir, ignore_errors=True)
    make_data()
    rows = plan.rows
    seeds = range(args.seeds if args.ablation else 1)
    # Seeds outside, so that an early stop leaves whole tables. Two at a time: models this small
    # do not fill two cores alone.
    at_a_time = 1 if plan.processes > 1 else 2
    jobs = [(row, seed) for seed in seeds for row in rows]
    results: dict[Row, list[dict]] = {row: [] for row in rows}
    with ThreadPoolExecutor(max_workers=at_a_time) as pool:
        try:
            for is_later in (False, True):  # rows that start from others' classifiers come later
                due = [job for job in jobs if (job[0].start is not None) == is_later]
                for job, result in zip(
                    due, pool.map(lambda job: run_row(*job, plan, args.smoke), due), strict=True
                ):
                    results[job[0]].append(result)
            if plan.features:
                for row, found in zip(
                    rows,
                    pool.map(lambda row: look_at_features(row, plan, args.smoke), rows),
                    strict=True,
                ):
                    results[row][0] |= found
        finally:
            pool.shutdown(cancel_futures=True)
    if args.ablation:
        summary = [dict(average(results[row]), seeds=len(seeds)) for row in rows]
    else:
        summary = [results[row][0] for row in rows]
    summary_file = work_dir / f'{plan.summary}.json'
    summary_file.write_text(json.dumps(summary, indent=2) + '\n')
    show(summary)
    print(
        f'Models at a time: {at_a_time}, processes each: {plan.processes}, threads of a process: '
        f'1. Table: {summary_file}'
    )
    if plan.picture is not None:
        models = {
            row.name: (
                config_path(row, 'segment'),
                plan.work_dir(row, 0, args.smoke) / 'segment',
            )
            for row in rows
        }
        print(f'Picture: {draw(models, DATA / "scenes", work_dir / plan.picture)}')
    if plan.features:
        draw_gaussians_of(rows[-1], plan, args.smoke)


if __name__ == '__main__':
    main()
