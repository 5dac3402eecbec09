"""Run the rows of the paper's tables: pretrain on ImageNet, decode frozen, test, write a page.

The plan is printed first: every command, what is already done, hours, GPU-hours and disk space.
Every command is one of a tool of this repository. A step that fails stops the run; the same
command continues with the first step that is not done. The page, WORK_DIR/results.md, has the
paper's numbers beside.
"""

import argparse
import datetime
import json
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from paper import PaperRow, paper_tables
from reproduce_costs import Costs, count_parameters, disk_space, iterations, least_hours
from reproduce_plan import METRICS, Settings, Training, make_plan, missing_folders
from results import fill

from locat_mm.checkpoint import write_beside
from locat_mm.cli.reporting import reports_errors
from locat_mm.cli.running import run_command
from locat_mm.helpers import cpu_name

PAGE = """\
# The paper's tables, run again

Written by `tools/misc/reproduce.py`: ImageNet-1K top-1, and mIoU of a frozen backbone with the
linear decoder. The last column of a table has **the paper's numbers** (arXiv 2603.04892).
Parameters are those of the classifier.
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    tables = paper_tables()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--dry-run', action='store_true', help='only print the plan')
    parser.add_argument(
        '--measure',
        type=int,
        nargs='?',
        const=100,
        metavar='ITERATIONS',
        help='only train this many iterations (100) of each config, keep the time of one for the '
        "plan's hours, and print the plan",
    )
    parser.add_argument('--table', nargs='+', choices=tables, default=[*tables])
    parser.add_argument('--sizes', nargs='+', choices=['tiny', 'base'], default=['tiny', 'base'])
    names = dict.fromkeys(name_of(row) for rows in tables.values() for row in rows)
    parser.add_argument(
        '--rows', nargs='+', choices=names, default=[*names], metavar='ROW', help=', '.join(names)
    )
    parser.add_argument(
        '--decode',
        nargs='+',
        choices=[task for task in METRICS if task != 'imagenet'],
        default=['ade20k'],
        help='data sets of the linear decoder; the ablation has ade20k alone',
    )
    parser.add_argument('--seeds', type=int, default=1, help='number of seeds of each training')
    parser.add_argument('--gpus', type=int, default=8, help='of this machine')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/reproduce'))
    parser.add_argument(
        '--tflops',
        type=float,
        help='10^12 operations that a GPU sustains in a second, for a lower bound of the hours '
        'that are not measured',
    )
    for name, configs in (
        ('--pretrain-options', 'the ImageNet configs'),
        ('--decode-options', 'the decoding configs'),
        ('--cfg-options', 'all configs'),
    ):
        parser.add_argument(
            name, nargs='+', default=[], metavar='KEY=VALUE', help=f'override settings of {configs}'
        )
    args = parser.parse_args(argv)
    for name, least in (('measure', 2), ('seeds', 1), ('gpus', 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f'--{name} must be at least {least}, got {value}')
    if args.tflops is not None and args.tflops <= 0:
        parser.error(f'--tflops must be positive, got {args.tflops}')
    args.decode = [*dict.fromkeys(args.decode)]
    if 'ablation' in args.table and args.decode != ['ade20k']:
        parser.error(f'the ablation has no configs of {args.decode}: add --table main')
    args.tables = {
        name: [r for r in tables[name] if r.size in args.sizes and name_of(r) in args.rows]
        for name in args.table
    }
    if not any(args.tables.values()):
        parser.error(f'no row of {args.table} is of {args.sizes} and in {args.rows}')
    return args


def name_of(row: PaperRow) -> str:
    """The name of its configs, without the task."""
    return Path(row.stem).name


def show(plan: list[Training], costs: Costs, tflops: float | None) -> None:
    """Print every step, and what the trainings that are not done cost."""
    hours: list[float | None] = []
    gpus, size = plan[0].settings.gpus, 0
    steps = [(training, step) for training in plan for step in training.steps()]
    for number, (training, step) in enumerate(steps, 1):
        print(f'{number:>3}. {step.label}{" [done]" if step.is_done else ""}')
        print(f'     {shlex.join(step.command)}')
        if step.is_done or step.result != training.checkpoint:
            continue
        count, seconds, space = iterations(training), costs.seconds(training), disk_space(training)
        size += space
        hours.append(None if seconds is None else count * seconds / 3600)
        if seconds is not None:
            time = f'{seconds:.3f} s each: {in_hours(count * seconds / 3600, gpus)}'
        elif tflops is not None:
            least = in_hours(least_hours(training, tflops), gpus)
            time = f'not measured; at least {least}, at {tflops:g} TFLOP/s on each GPU'
        else:
            time = 'hours unknown (--measure)'
        print(f'     {count:,} iterations, {time}; checkpoints: {space / 1e9:.2f} GB')
    known = [value for value in hours if value is not None]
    print(f'{sum(step.is_done for _, step in steps)} of {len(steps)} steps are done.')
    measured = f'{len(known)} of them measured, {in_hours(sum(known), gpus)}' if known else ''
    print(
        f'Trainings to do: {len(hours)}, {measured or "none of them measured"}. Validation, tests '
        'and start-up come on top.'
    )
    free = shutil.disk_usage(existing(plan[0].settings.work_dir)).free
    print(f'Checkpoints: {size / 1e9:.2f} GB; {free / 1e9:.2f} GB are free.', flush=True)
    if size > free:
        print('WARNING: the checkpoints will not fit.', file=sys.stderr)


def in_hours(hours: float, gpus: int) -> str:
    return f'{hours:.2f} h, {hours * gpus:.2f} GPU-hours'


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def check_data(plan: list[Training]) -> None:
    """
    Raises:
        FileNotFoundError: if folders of data are missing; names all of them.
    """
    missing = missing_folders(plan)
    if missing:
        sources = '\n'.join(dict.fromkeys(missing.values()))
        raise FileNotFoundError(
            f'folders of data are missing (looked from {Path.cwd()}): {", ".join(missing)}\n'
            f'{sources}\ndocs/train.md, "Configs", has the layout of all data sets.'
        )


def run(plan: list[Training]) -> None:
    """Run every step that is not done.

    Raises:
        SystemExit: if a step fails, or leaves no result; the message names its log.
    """
    steps = [(training, step) for training in plan for step in training.steps()]
    for number, (training, step) in enumerate(steps, 1):
        label = f'{number}/{len(steps)} {step.label}'
        if step.is_done:
            print(f'{label}: already done')
            continue
        print(f'{label} ...', flush=True)
        training.keep_options()
        run_command(label, step.log, step.command)
        if not step.is_done:
            raise SystemExit(f'{label} wrote no {step.result}; its whole output: {step.log}')


def write_page(args: argparse.Namespace, plan: list[Training], command: str) -> Path:
    """Write the page, and the summaries of its tables in a folder beside it."""
    page = args.work_dir / 'results.md'
    folder = page.with_suffix('')
    folder.mkdir(exist_ok=True)
    tests = [training.metrics for training in plan]
    about = dict(
        command=command,
        date=str(datetime.date.fromtimestamp(max(file.stat().st_mtime for file in tests))),
        device=f'{args.gpus} × {device_of(plan[0])}',
        torch=torch.__version__,
    )
    text = PAGE
    for name, rows in args.tables.items():
        if not rows:
            continue
        summary = dict(about=about, rows=[summarize(row, plan) for row in rows])
        (folder / f'{name}.json').write_text(json.dumps(summary, indent=1) + '\n')
        text += f'\n## {name.capitalize()}\n'
        for kind in ('paper', 'about'):
            text += f'\n<!-- results: {name} {kind} -->\n<!-- end -->\n'
    with write_beside(page) as beside:
        beside.write_text(fill(text, folder), encoding='utf-8')
    return page


def device_of(training: Training) -> str:
    """The GPU in the log of a training, where mmengine writes it; without one, the CPU."""
    found = re.search(r'^ *GPU [\d,]+: (.+)$', training.log.read_text(), re.MULTILINE)
    return found[1] if found else cpu_name()


def summarize(row: PaperRow, plan: list[Training]) -> dict:
    """A row as tools/misc/results.py reads it: name, parameters of the classifier, metrics."""
    runs: dict[int, dict[str, float]] = {}
    for training in plan:
        if training.stem == row.stem:
            metric, key = METRICS[training.task]
            found = json.loads(training.metrics.read_text())[key]
            runs.setdefault(training.seed, {})[metric] = round(found, 2)
    first = next(t for t in plan if t.stem == row.stem and t.start is None)
    parameters, _ = count_parameters(first.config, first.chosen)
    return dict(name=row.name, params=parameters, runs=[*runs.values()])


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    settings = Settings(
        *(args.work_dir, args.gpus, tuple(args.decode)),
        pretrain_options=(*args.cfg_options, *args.pretrain_options),
        decode_options=(*args.cfg_options, *args.decode_options),
    )
    rows = [row for table in args.tables.values() for row in table]
    plan, costs = make_plan(rows, range(args.seeds), settings), Costs(args.work_dir)
    for training in plan:
        training.check_options()
    due = [training for training in plan if not training.is_done]
    if args.measure is not None:
        check_data(due)
        for training in due:
            if costs.seconds(training) is None:
                costs.measure(training, args.measure)
    show(plan, costs, args.tflops)
    if args.dry_run or args.measure is not None:
        print('Folders of data that are missing:', ', '.join(missing_folders(due)) or 'none')
        return
    check_data(due)
    run(plan)
    command = shlex.join(sys.argv[1:] if argv is None else argv)
    page = write_page(args, plan, f'python tools/misc/reproduce.py {command}')
    print(f'Results: {page}')


if __name__ == '__main__':
    MMLogger.get_current_instance().setLevel('WARNING')  # models report what they were built of
    # SIGTERM ends the tool that runs as well: run_command passes the SystemExit on.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    main()
