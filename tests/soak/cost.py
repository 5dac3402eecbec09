"""What reliability costs: the hooks in a step, the data guard in a sample, a save, a resume.

Hooks are timed by the call within real training, and set against the step that they stand in. A
save by SafeCheckpointHook alternates with one by mmengine's own CheckpointHook.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from locat_mm.checkpoint import find_resumable
from locat_mm.config import load_config
from locat_mm.engine import SafeCheckpointHook, build_runner
from tests.support import ROOT, demo_config

#: where a hook can stand in a step; the last is that of the optimizer's
POINTS = ('before_train_iter', 'after_train_iter', '_before_step')


class StepTimer(Hook):
    """Seconds from one step to the next, with everything in them but the wait for data."""

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._begin = time.perf_counter()

    def after_train_epoch(self, runner: Runner) -> None:
        """Nothing: the next step begins anew."""

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._begin)


def build(model: str, data: Path, work_dir: Path, batch_size: int, iterations: int) -> Runner:
    """Pretraining of a real model at 224×224 on images of digits that are scaled up."""
    cfg = load_config(
        str(demo_config('locatvit_classify')),
        {
            'train_dataloader.batch_size': batch_size,
            'train_dataloader.dataset.data_root': str(data / 'data/digit_scenes/objects'),
            'train_cfg.max_epochs': 1,
            'param_scheduler': None,
            'default_hooks.checkpoint.interval': 10**6,
        },
        str(work_dir),
    )
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    large = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / f'{model}.py')
    cfg.model.backbone = {**large.backbone, **large.pretraining}
    cfg.model.neck = large.neck
    cfg.model.head.in_channels = large.out_channels
    cfg.train_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(224, 224)))
    cfg.train_dataloader.dataset.indices = batch_size * iterations
    return build_runner(cfg)


def time_hooks(runner: Runner) -> tuple[float, dict[str, float]]:
    """Train, timing each of our hooks.

    Returns:
        the median step in seconds, and hook -> median seconds per step.
    """
    calls: dict[str, list[float]] = defaultdict(list)
    for hook in runner.hooks:
        if type(hook).__module__.startswith('locat_mm'):
            for point in POINTS:
                if getattr(type(hook), point, None) is not getattr(Hook, point, None):
                    name = f'{type(hook).__name__}.{point}'
                    setattr(hook, point, _timed(getattr(hook, point), calls[name]))
    steps = StepTimer()
    runner.register_hook(steps)
    runner.train()
    return statistics.median(steps.seconds), {k: statistics.median(v) for k, v in calls.items()}


def _timed(call: Callable, seconds: list[float]) -> Callable:
    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - begin)

    return timed


def time_sample(runner: Runner, rounds: int = 200) -> tuple[float, float]:
    """Median seconds of a sample, as mmengine makes it and as the hooks have it made."""
    dataset: Any = runner.train_loop.dataloader.dataset
    sampler: Any = runner.train_loop.dataloader.batch_sampler.sampler
    indices = [index for _, index in zip(range(rounds), sampler, strict=False)]
    plain = Runner.build_dataloader(runner.cfg.train_dataloader).dataset
    seconds: tuple[list[float], list[float]] = ([], [])
    for index in indices:
        for made, kept in zip((plain, dataset), seconds, strict=True):
            begin = time.perf_counter()
            made[int(index) if made is plain else index]
            kept.append(time.perf_counter() - begin)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def time_saves(runner: Runner, rounds: int) -> dict[str, float]:
    """Median seconds of a save by mmengine's hook and by ours, and of finding and reading it."""
    hooks = {}
    for hook_type in (CheckpointHook, SafeCheckpointHook):
        hook = hook_type(interval=1, max_keep_ckpts=2, by_epoch=False)
        hook.before_train(runner)
        hook.out_dir = str(Path(runner.work_dir) / hook_type.__name__)
        hooks[hook_type.__name__] = hook
    seconds: dict[str, list[float]] = defaultdict(list)

    def note(name: str, call: Callable, *args: Any) -> Any:
        begin = time.perf_counter()
        result = call(*args)
        seconds[name].append(time.perf_counter() - begin)
        return result

    for step in range(rounds):
        for name, hook in hooks.items():
            meta = dict(epoch=0, iter=step)
            note(name, hook._save_checkpoint_with_step, runner, step, meta)
        found = note('find_resumable', find_resumable, hooks['SafeCheckpointHook'].out_dir)
        note('read', lambda path: torch.load(path, map_location='cpu', weights_only=False), found)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--models', nargs='+', default=['locatvit_tiny', 'locatvit_base'])
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--iterations', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=5, help='saves of each kind')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--out', help='file for the tables')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    tables = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        converter = ROOT / 'tools' / 'dataset_converters' / 'digit_scenes.py'
        objects = str(-(-args.batch_size * args.iterations // 10) * 10)
        sizes = ('--objects', objects, '10', '--scenes', '1', '1')
        subprocess.run([sys.executable, str(converter), *sizes], cwd=place, check=True)
        for model in args.models:
            print(f'{model} ...', flush=True)
            runner = build(model, place, place / model, args.batch_size, args.iterations)
            step, hooks = time_hooks(runner)
            table = Table(title=f'{model}, 224×224, batch {args.batch_size}, CPU')
            for header in ('what', 'median (ms)', 'share'):
                table.add_column(header, justify='left' if header == 'what' else 'right')
            table.add_row('a training step', f'{1e3 * step:.1f}', '')
            for name, seconds in hooks.items():
                table.add_row(name, f'{1e3 * seconds:.3f}', f'{seconds / step:.3%}')
            total = sum(hooks.values())
            table.add_row('all hooks', f'{1e3 * total:.3f}', f'{total / step:.3%}')
            stock, ours = time_sample(runner)
            table.add_row('a sample, without the hooks', f'{1e3 * stock:.3f}', '')
            table.add_row('a sample', f'{1e3 * ours:.3f}', f'{ours / stock - 1:+.1%}')
            for name, seconds in time_saves(runner, args.rounds).items():
                table.add_row(name, f'{1e3 * seconds:.0f}', '')
            size = next(Path(runner.work_dir).rglob('iter_*.pth')).stat().st_size
            table.add_row(f'(a checkpoint has {size / 1e6:.0f} MB)', '', '')
            tables.append(table)
    for table in tables:
        Console(width=100).print(table)
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as file:
            for table in tables:
                Console(width=100, file=file).print(table)


if __name__ == '__main__':
    main()
