"""Run the whole recipe on embedded data: pretrain, freeze, train a decoder, test, compare.

Every step calls a tool that a real run uses (tools/train.py, tools/test.py,
tools/analysis_tools); only the configs and the data are small. ``--ablation`` trains the models of
the ablation over several seeds. ``--families`` trains every family for a few epochs through the
dist tools. ``--attach`` attaches LocAt to the ViT that the demo pretrained. ``--satellite`` trains
on land cover from space, over several seeds. An interrupted run continues where it stopped.
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

from colour_baseline import colour_baseline
from experiments import DIGITS, EXPERIMENTS, ROOT, SMOKE, Data, Experiment, Row
from figure import draw
from mmengine.config import Config
from page import first_scenes, median_scenes, write_demo_page
from table import average, show

from locat_mm.analysis.gaussians import draw_gaussians
from locat_mm.checkpoint import read_state_dict
from locat_mm.cli.reporting import reports_errors

PARTS = ('classify', 'segment')
#: the parts of mmengine's log lines that state the progress
PROGRESS = re.compile(r'(Epoch|Iter)\((train|val|test)\)[ \[\]\d/]+|eta: [\d:]+|loss: [\d.]+')


def run_command(label: str, log: Path, command: list[str]) -> None:
    """Run a tool. Print one progress line every ten seconds; write the whole output to a log.

    Raises:
        SystemExit: if the tool fails; the end of its output is printed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    last_shown = time.monotonic()
    # One thread each: two models or two processes run at the same time, see main.
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


def make_data(data: Data = DIGITS) -> None:
    """Write a data set, unless this version of its converter already wrote it.

    Raises:
        SystemExit: if the converter fails; it has printed the reason.
    """
    converter = ROOT / 'tools' / 'dataset_converters' / f'{data.name}.py'
    meta = data.folder / 'meta.json'
    source = hashlib.sha256(converter.read_bytes()).hexdigest()
    if not meta.exists() or json.loads(meta.read_text())['source'] != source:
        command = [sys.executable, str(converter), '--out-dir', str(data.folder)]
        if subprocess.run(command).returncode:
            raise SystemExit(f'{converter.name} failed')


def fingerprint(row: Row, experiment: Experiment, smoke: bool) -> str:
    """A hash of everything except the seed that a result depends on: configs, data, options."""
    configs = [experiment.data.config(f'{row.stem}_{part}') for part in PARTS]
    settings = (experiment.options, experiment.processes, smoke)
    return digest(configs, *settings, data=experiment.data)


def digest(configs: list[Path], *settings: object, data: Data = DIGITS) -> str:
    """A hash of configs, data and further settings."""
    contents = [Config.fromfile(path).to_dict() for path in configs]
    meta = (data.folder / 'meta.json').read_text()
    return hashlib.sha256(repr((contents, meta, settings)).encode()).hexdigest()


def prepare_run(label: str, work_dir: Path, current: str) -> dict | None:
    """Create the folder of a run, or empty it if it belongs to another fingerprint.

    Args:
        label: the run's name, for messages.
        work_dir: the folder.
        current: the fingerprint of the run.

    Returns:
        the result if the run is already done, else None.
    """
    fingerprint_file, result_file = work_dir / 'fingerprint', work_dir / 'result.json'
    if work_dir.exists() and (
        not fingerprint_file.exists() or fingerprint_file.read_text() != current
    ):
        print(f'{label}: configs or data have changed, so it starts again')
        shutil.rmtree(work_dir)
    if result_file.exists():
        print(f'{label}: already done')
        return json.loads(result_file.read_text())
    work_dir.mkdir(parents=True, exist_ok=True)
    fingerprint_file.write_text(current)
    return None


def write_result(work_dir: Path, result: dict) -> dict:
    """Write the result of a run, which marks it as done; return the result."""
    (work_dir / 'result.json').write_text(json.dumps(result))
    return result


def feature_configs(row: Row, data: Data) -> list[Path]:
    """The configs of k-NN and of in-context segmentation."""
    folder, slash, name = row.stem.rpartition('/')
    names = (f'{row.stem}_classify', f'{folder}{slash}in_context_{name}')
    return [data.config(name) for name in names]


def features_fingerprint(row: Row, data: Data = DIGITS) -> str:
    """A hash of what the evaluations of features depend on besides the trained weights."""
    return digest(feature_configs(row, data), data=data)


def evaluate_features(row: Row, seed: int, experiment: Experiment, smoke: bool) -> dict:
    """Evaluate the pretrained features without further training, unless it is already done.

    Returns:
        ``knn`` (top-1 of 20 neighbours) and ``in_context`` (mIoU), percent.
    """
    work_dir = experiment.work_dir(row, seed, smoke)
    result_file = work_dir / 'features.json'
    current = features_fingerprint(row, experiment.data)
    if result_file.exists():
        results = json.loads(result_file.read_text())
        if results.pop('fingerprint') == current:
            return results
    trained = row if row.trains or row.start is None else row.start
    checkpoint = last_checkpoint(experiment.work_dir(trained, seed, smoke) / 'classify')
    classifier, in_context = map(str, feature_configs(row, experiment.data))
    results = {}
    for name, key, args in (
        ('knn', 'knn/top1_k20', [classifier, checkpoint, '--k', '20']),
        ('in_context', 'mIoU', [in_context, checkpoint, '--prefix', 'backbone']),
    ):
        part_dir = work_dir / name
        out = part_dir / 'metrics.json'
        args += ['--work-dir', str(part_dir), '--out', str(out)]
        command = experiment.command(f'analysis_tools/{name}', args)
        run_command(f'{row.name}, seed {seed}, {name}', part_dir / 'test.txt', command)
        results[name] = round(json.loads(out.read_text())[key], 2)
    result_file.write_text(json.dumps(dict(results, fingerprint=current)))
    return results


def run_row(row: Row, seed: int, experiment: Experiment, smoke: bool) -> dict:
    """Train one model and its decoder, or continue where an earlier run stopped.

    Returns:
        ``name``, ``top1`` and ``miou`` (percent), ``params`` (of the backbone) and
        ``seconds`` (wall time of both trainings).
    """
    work_dir = experiment.work_dir(row, seed, smoke)
    current = fingerprint(row, experiment, smoke)
    earlier = prepare_run(f'{row.name}, seed {seed}', work_dir, current)
    if earlier is not None:
        return earlier
    metrics, checkpoints = {}, {}
    for part in PARTS:
        label = f'{row.name}, seed {seed}, {part}'
        print(f'{label} ...', flush=True)
        config = str(experiment.data.config(f'{row.stem}_{part}'))
        part_dir = work_dir / part
        chosen = SMOKE if smoke else experiment.options
        options = [f'randomness.seed={seed}', *chosen.get(part, ())]
        if part == 'classify' and row.start is not None:
            start = last_checkpoint(experiment.work_dir(row.start, seed, smoke) / part)
            options.append(f'model.init_cfg.checkpoint={start}')
            checkpoints[part] = start
        if part == 'segment':
            options.append(f'model.backbone.init_cfg.checkpoint={checkpoints["classify"]}')
        if part == 'segment' or row.trains:
            with add_elapsed_time(work_dir / 'seconds'):
                run_command(
                    label,
                    part_dir / 'train.txt',
                    experiment.command(
                        'train',
                        [
                            *(config, '--work-dir', str(part_dir), '--resume'),
                            *('--cfg-options', *options),
                        ],
                    ),
                )
            checkpoints[part] = last_checkpoint(part_dir)
        out = part_dir / 'metrics.json'
        run_command(
            f'{label}, test',
            part_dir / 'test.txt',
            experiment.command(
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
    return write_result(work_dir, result)


def draw_gaussians_of(row: Row, experiment: Experiment, smoke: bool) -> None:
    """Draw the Gaussians that GAug learned in pretraining, for one scene."""
    checkpoint = last_checkpoint(experiment.work_dir(row, 0, smoke) / 'classify')
    (scene,) = first_scenes(experiment.data.scenes, 1)
    out = experiment.root(smoke) / 'gaussians.png'
    classifier = experiment.data.config(f'{row.stem}_classify')
    draw_gaussians(str(classifier), checkpoint, str(scene), str(out))
    print(f'Gaussians of {row.name}: {out}')


def last_checkpoint(folder: Path) -> str:
    return (folder / 'last_checkpoint').read_text().strip()


@contextmanager
def add_elapsed_time(file: Path) -> Iterator[None]:
    """Add the time spent in the context to the seconds in a file, also after an error."""
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
    kind.add_argument('--ablation', action='store_true', help='the ablation, over several seeds')
    kind.add_argument('--families', action='store_true', help='every family, a few epochs each')
    kind.add_argument('--attach', action='store_true', help='attach LocAt to the trained ViT')
    kind.add_argument('--satellite', action='store_true', help='land cover, over several seeds')
    parser.add_argument('--fresh', action='store_true', help='discard what earlier runs left')
    return parse_scale(parser, argv)


def parse_scale(
    parser: argparse.ArgumentParser, argv: list[str] | None = None
) -> argparse.Namespace:
    """Add the options for the size of a demo, and parse the command line."""
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds that are averaged')
    parser.add_argument(
        '--smoke', action='store_true', help='only check that it runs; the numbers mean nothing'
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f'--seeds must be positive, got {args.seeds}')
    return args


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    chosen = [name for name in EXPERIMENTS if name != 'demo' and getattr(args, name)]
    experiment = EXPERIMENTS[chosen[0] if chosen else 'demo']
    work_dir = experiment.root(args.smoke)
    if args.fresh:
        shutil.rmtree(work_dir, ignore_errors=True)
    make_data(experiment.data)
    rows = experiment.rows
    seeds = range(args.seeds if experiment.repeats else 1)
    # The loop over seeds is the outer one: after an early stop all models of a seed are done.
    # Two models at a time, because one of this size does not use two cores.
    at_a_time = 1 if experiment.processes > 1 else 2
    jobs = [(row, seed) for seed in seeds for row in rows]
    results: dict[Row, list[dict]] = {row: [] for row in rows}
    with ThreadPoolExecutor(max_workers=at_a_time) as pool:
        try:
            for is_later in (False, True):  # first the models that others start from
                due = [job for job in jobs if (job[0].start is not None) == is_later]
                done = pool.map(lambda job: run_row(*job, experiment, args.smoke), due)
                for job, result in zip(due, done, strict=True):
                    results[job[0]].append(result)
            if experiment.features:
                done = pool.map(lambda job: evaluate_features(*job, experiment, args.smoke), jobs)
                for (row, seed), found in zip(jobs, done, strict=True):
                    results[row][seed] |= found
        finally:
            pool.shutdown(cancel_futures=True)
    if experiment.repeats:
        summary = [dict(average(results[row]), seeds=len(seeds)) for row in rows]
    else:
        summary = [results[row][0] for row in rows]
    if experiment.baseline:
        summary.insert(0, colour_baseline(experiment.data.scenes))
    summary_file = work_dir / f'{experiment.summary}.json'
    summary_file.write_text(json.dumps(summary, indent=2) + '\n')
    show(summary)
    print(
        f'Models at a time: {at_a_time}, processes each: {experiment.processes}, '
        f'threads of a process: 1. Table: {summary_file}'
    )
    if experiment.picture is not None:
        models = {
            row.name: (
                experiment.data.config(f'{row.stem}_segment'),
                experiment.work_dir(row, 0, args.smoke) / 'segment',
            )
            for row in rows
        }
        scenes = experiment.data.scenes
        shown = (
            median_scenes(models[rows[-1].name], scenes, 4)
            if experiment.median
            else first_scenes(scenes, 4)
        )
        print(f'Picture: {draw(models, scenes, work_dir / experiment.picture, shown)}')
    if experiment.picture is not None and experiment.features:
        draw_gaussians_of(rows[-1], experiment, args.smoke)
        page = write_demo_page(models, scenes, work_dir / 'look_inside.html')
        print(f'A look inside, for the browser: {page}')


if __name__ == '__main__':
    main()
