"""Run the whole recipe on embedded data: pretrain, freeze, train a decoder, test, compare.

Every step calls a tool that a real run uses (tools/train.py, tools/test.py,
tools/analysis_tools); only the configs and the data are small. ``--ablation`` trains the models of
the ablation over several seeds, ``--grid`` three of them with patches of half the side, and
``--growth`` the demo's two models with more parameters and with fewer images. ``--families``
trains every family for a few epochs through the dist tools. ``--attach`` attaches LocAt to the ViT
that the demo pretrained. ``--satellite`` trains on land cover from space, over several seeds. An
interrupted run continues where it stopped.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from colour_baseline import colour_baseline
from experiments import EXPERIMENTS, Experiment, Row
from figure import draw
from look_inside import first_scenes, median_scenes, write_demo_page
from steps import evaluate_features, last_checkpoint, make_data, run_row
from table import average, collect, show

from locat_mm.analysis.gaussians import draw_gaussians
from locat_mm.cli.reporting import reports_errors


def draw_gaussians_of(row: Row, experiment: Experiment, smoke: bool) -> None:
    """Draw the Gaussians that GAug learned in pretraining, for one scene."""
    checkpoint = last_checkpoint(experiment.work_dir(row, 0, smoke) / 'classify')
    (scene,) = first_scenes(experiment.data.scenes, 1)
    out = experiment.root(smoke) / 'gaussians.png'
    classifier = experiment.data.config(f'{row.stem}_classify')
    draw_gaussians(str(classifier), checkpoint, str(scene), str(out))
    print(f'Gaussians of {row.name}: {out}')


def run_rows(
    jobs: list[tuple[Row, int]], experiment: Experiment, smoke: bool, pool: ThreadPoolExecutor
) -> Iterator[tuple[tuple[Row, int], dict]]:
    """Train models, each after the one that it starts from.

    Args:
        jobs: models and seeds. If a model starts from another, that one is among them.
        experiment: says where and how they are trained.
        smoke: only check that it runs.
        pool: each of its threads trains a model at a time.

    Yields:
        a job and its result, in the order of ``jobs``.

    Raises:
        SystemExit: if a training or a test fails, also that of the start.
    """
    results: dict[tuple[Row, int], Future[dict]] = {}

    def run_after_start(row: Row, seed: int) -> dict:
        if row.start is not None:
            results[row.start, seed].result()
        return run_row(row, seed, experiment, smoke)

    # Seed by seed: after an early stop all models of a seed are done. In a seed, models that others
    # start from come first: so what a thread waits for has begun.
    for job in sorted(jobs, key=lambda job: (job[1], job[0].start is not None)):
        results[job] = pool.submit(run_after_start, *job)
    for job in jobs:
        yield job, results[job].result()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--ablation', action='store_true', help='the ablation, over several seeds')
    kind.add_argument('--grid', action='store_true', help='patches of half the side, several seeds')
    kind.add_argument('--growth', action='store_true', help='more parameters, or fewer images')
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
    # Two models at a time, because one of this size does not use two cores.
    at_a_time = 1 if experiment.processes > 1 else 2
    jobs = [(row, seed) for seed in seeds for row in rows]
    results: dict[Row, list[dict]] = {row: [] for row in rows}
    with ThreadPoolExecutor(max_workers=at_a_time) as pool:
        try:
            for (row, _), result in run_rows(jobs, experiment, args.smoke, pool):
                results[row].append(result)
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
    runs = {row.name: results[row] for row in rows}
    if experiment.baseline:
        baseline = colour_baseline(experiment.data.scenes)
        summary.insert(0, baseline)
        runs = {baseline['name']: [baseline], **runs}
    if experiment.repeats:
        found = collect(runs, f'make demo-{chosen[0]} SEEDS={args.seeds}', experiment.compared)
        (work_dir / 'results.json').write_text(json.dumps(found, indent=1) + '\n')
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
        shown = median_scenes(models[rows[-1].name], scenes, 4)
        print(f'Picture: {draw(models, scenes, work_dir / experiment.picture, shown)}')
    if experiment.picture is not None and experiment.features:
        draw_gaussians_of(rows[-1], experiment, args.smoke)
        trained = {row.name: models[row.name] for row in rows if row.trains}
        page = write_demo_page(trained, scenes, work_dir / 'look_inside.html')
        print(f'A look inside, for the browser: {page}')


if __name__ == '__main__':
    main()
