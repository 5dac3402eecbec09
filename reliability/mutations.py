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
import functools
import gc
import os
import random
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
from pathlib import Path
from types import CodeType
from typing import Any

import matplotlib.pyplot  # noqa: F401  imported by mmengine's visualizer, in every fork
import torch
from config_mutants import mutate, write
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.utils.dl_utils import collect_env
from mmpretrain.utils import register_all_modules as import_mmpretrain
from mmseg.utils import register_all_modules as import_mmseg
from mutants import FAMILIES, Maker, Mutant
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from locat_mm.config import load_config

# Once for all forks.
import_mmpretrain(init_default_scope=False)
import_mmseg(init_default_scope=False)
collect_env()

ROOT = Path(__file__).resolve().parents[1]
#: seconds after which a case hangs
LIMIT = 60
BACKBONE = 'backbone.'
RIGHT = ('refused', 'runs')
SMALL = {
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.dataset.indices': 4,
    'test_dataloader.batch_size': 2,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'test_dataloader.dataset.indices': 2,
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.interval': 1,
    'custom_hooks': [dict(type='MutationSnapshot')],
}
STOCK = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=64),
    img_size=48,
    patch_size=8,
)
EMA = dict(type='EMAHook', momentum=0.1)
#: demo config, its overrides and the ways in which its checkpoints are tried
SUBJECTS: dict[str, tuple[str, dict, tuple[str, ...]]] = {
    'classifier': (
        'locatvit_classify',
        {'train_cfg.max_epochs': 2},
        ('load_from', 'resume', 'test', 'init_cfg'),
    ),
    'segmentor': (
        'locatvit_segment',
        {'train_cfg.max_iters': 2, 'param_scheduler.0.total_steps': 2},
        ('load_from', 'resume', 'test', 'init_cfg'),
    ),
    # A backbone of mmpretrain's, with averaged weights.
    'stock': (
        'vit_classify',
        {
            'train_cfg.max_epochs': 2,
            'train_dataloader.dataset.indices': 8,
            'custom_hooks': [dict(type='MutationSnapshot'), EMA],
        },
        ('load_from', 'resume', 'test', 'init_cfg'),
    ),
}


@HOOKS.register_module(force=True)
class MutationSnapshot(Hook):
    """Writes down what was loaded, before the first step, and that a step has run."""

    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        self._write(
            runner,
            optimizer=runner.optim_wrapper.state_dict(),
            schedule=[scheduler.last_step for scheduler in runner.param_schedulers or ()],
            iter=runner.iter,
        )

    def before_test_epoch(self, runner: Any) -> None:
        self._write(runner)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        (Path(runner.work_dir) / 'stepped').touch()

    def after_test(self, runner: Any) -> None:
        (Path(runner.work_dir) / 'stepped').touch()

    @staticmethod
    def _write(runner: Any, **more: Any) -> None:
        content = dict(model=runner.model.state_dict(), **more)
        torch.save(content, Path(runner.work_dir) / 'loaded.pt')


class Laboratory:
    """Subjects with a checkpoint each, and cases with their mutants.

    Args:
        folder: for everything; the working directory of the tools.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.set_num_threads(1)
        gc.collect()
        gc.freeze()  # or each fork would go through all that is imported, to collect garbage
        self.run('dataset_converters/digit_scenes.py', '--objects', '16', '4', '--scenes', '8', '2')
        self.configs: dict[str, dict] = {}
        self.contents: dict[str, dict] = {}
        for name, (stem, overrides, _) in SUBJECTS.items():
            config = load_config(str(ROOT / f'configs/demo/{stem}.py'), {**SMALL, **overrides})
            if name == 'stock':
                config.model.backbone = STOCK
            config = config.to_dict()
            config['work_dir'] = 'run'
            self.configs[name] = config
            if name == 'segmentor':  # starts from the classifier, as the demo's
                init = config['model']['backbone']['init_cfg']
                init['checkpoint'] = str(folder / 'classifier.pth')
            code, output = self.train(config)
            if code:
                raise RuntimeError(f'the unbroken {name} does not train:\n{output[-3000:]}')
            last = Path(folder, 'run', 'last_checkpoint').read_text()
            first = last.replace('_2.pth', '_1.pth')
            shutil.copy(folder / first, folder / f'{name}.pth')
            self.contents[name] = torch.load(folder / first, weights_only=False)
        self.extra = {f'layer{i}.0.conv1.weight': torch.ones(4, 4) for i in range(4)}

    def train(self, config: dict, *args: str) -> tuple[int, str]:
        path = self.folder / 'config.py'
        path.write_text(write(config))
        return self.run('train.py', str(path), *args)

    def run(self, tool: str, *args: str) -> tuple[int, str]:
        """Run a tool in a fork.

        Returns:
            its exit code, negative for a signal, and what it printed.
        """
        shutil.rmtree(self.folder / 'run', ignore_errors=True)
        path = ROOT / 'tools' / tool
        _compiled(path)  # once: edits of the tools do not meet what is imported already
        log = self.folder / 'output.txt'
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _become(path, args, self.folder, log)
        deadline = time.monotonic() + LIMIT
        done = 0
        while not done:
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return 124, log.read_text(errors='replace')
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(status), log.read_text(errors='replace')

    def try_config(self, rng: random.Random) -> tuple[str, str, str]:
        """One mutated config; returns what it is, the verdict and the message."""
        name = rng.choice([*SUBJECTS])
        text, note = mutate(self.configs[name], rng)
        path = self.folder / 'config.py'
        path.write_text(text)
        road = rng.choice(['train', 'train', 'test'])
        given = [str(self.folder / f'{name}.pth')] if road == 'test' else []
        code, output = self.run(f'{road}.py', str(path), *given, '--work-dir', 'run')
        verdict = _judge_exit(code, output)
        if verdict == 'runs' and not (self.folder / 'run' / 'stepped').exists():
            # The hook itself may be what is missing.
            verdict = 'runs' if 'custom_hooks' in note else 'nothing done'
        return f'config {name} {road}: {note}', verdict, _message(output)

    def try_checkpoint(self, rng: random.Random) -> tuple[str, str, str]:
        """One mutated checkpoint; returns what it is, the verdict and the message."""
        name = rng.choice([*SUBJECTS])
        road = rng.choice(SUBJECTS[name][2])
        source = 'classifier' if (name, road) == ('segmentor', 'init_cfg') else name
        scratch = self.folder / 'scratch'
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        marker = scratch / 'executed'
        others = [self.extra]
        others += [c['state_dict'] for other, c in self.contents.items() if other != source]
        make = Maker(self.contents[source], others, scratch, marker, rng)
        family = rng.choices([*FAMILIES], [*FAMILIES.values()])[0]
        mutant = family(make)
        code, output = self.run(*self._command(name, road, str(mutant.path)))
        verdict = _judge_exit(code, output)
        if marker.exists():
            verdict = 'CODE EXECUTED'
        elif verdict in RIGHT:
            verdict = self._judge(name, road, mutant, verdict, output)
        note = f'{family.__name__}: {mutant.note}'.replace(str(self.folder), '')
        return f'checkpoint {name} {road}: {note}', verdict, _message(output)

    def _command(self, name: str, road: str, checkpoint: str) -> list[str]:
        path = self.folder / 'config.py'
        path.write_text(write(self.configs[name]))
        if road == 'test':
            return ['test.py', str(path), checkpoint]
        if road == 'resume':
            return ['train.py', str(path), '--resume', checkpoint]
        if road == 'load_from':
            return ['train.py', str(path), '--cfg-options', f'load_from={checkpoint}']
        init = dict(type='Pretrained', checkpoint=checkpoint, prefix=BACKBONE)
        config = self.configs[name]
        model = {**config['model'], 'backbone': {**config['model']['backbone'], 'init_cfg': init}}
        path.write_text(write({**config, 'model': model}))
        return ['train.py', str(path)]

    def _judge(self, name: str, road: str, mutant: Mutant, verdict: str, output: str) -> str:
        own = self.contents[name]['state_dict']
        if road == 'init_cfg':
            own = {key: value for key, value in own.items() if key.startswith(BACKBONE)}
        is_right = _must_load(own, name, road, mutant)
        if verdict == 'refused':
            return verdict if mutant.loose or not is_right else 'WHOLE REFUSED'
        if not is_right:
            return 'BROKEN LOADED'
        run = self.folder / 'run'
        if not (run / 'stepped').exists():
            return 'NOTHING DONE'
        loaded = torch.load(run / 'loaded.pt', weights_only=False)
        given = mutant.ema if road == 'resume' and mutant.ema else mutant.state
        assert given is not None
        named = _named(output)
        if road == 'init_cfg':  # of a backbone, which has no prefix
            named |= {BACKBONE + key for key in named}
        for key, value in own.items():
            if key in given and given[key].shape == value.shape:
                if not torch.equal(loaded['model'][key], given[key].to(value.dtype)):
                    return f'WRONG WEIGHTS {key}'
            elif key not in named:
                return f'SILENT PARTIAL LOAD without {key}'
        strays = set(given) - set(own)
        if road == 'init_cfg':  # takes the backbone's part; final norms are optional
            strays = {k for k in strays if k.startswith(BACKBONE) and '.norm.' not in k}
        if strays - named:
            return f'SILENT PARTIAL LOAD, {min(strays - named)} left over'
        if road == 'resume':
            return _judge_resumed(loaded, self.contents[name])
        return verdict


def _must_load(own: dict, name: str, road: str, mutant: Mutant) -> bool:
    """Whether a mutant is to be loaded, by what it holds."""
    if mutant.state is None or (road == 'resume' and not mutant.resumable):
        return False
    fits = []
    for given in (mutant.state, mutant.ema) if road in ('resume', 'test') else (mutant.state,):
        if given is None:
            continue
        if road == 'init_cfg':
            given = {key: value for key, value in given.items() if key.startswith(BACKBONE)}
        same = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
        if not all(v.is_floating_point() and v.float().isfinite().all() for v in same.values()):
            return False
        strays = {key for key in given if key not in own}
        if road == 'init_cfg':
            strays = {key for key in strays if '.norm.' not in key}
        is_whole = len(same) == len(own) and not strays
        if road == 'load_from' or (name, road) == ('stock', 'init_cfg'):
            fits.append(any(key.startswith(BACKBONE) for key in same))
        else:
            fits.append(is_whole)
    return all(fits)


def _judge_resumed(loaded: dict, content: dict) -> str:
    state, expected = loaded['optimizer']['state'], content['optimizer']['state']
    same = state.keys() == expected.keys() and all(
        torch.equal(torch.as_tensor(state[i][part]), torch.as_tensor(value))
        for i, entry in expected.items()
        for part, value in entry.items()
    )
    steps = [schedule['last_step'] for schedule in content['param_schedulers']]
    if not same or loaded['schedule'] != steps or loaded['iter'] != content['meta']['iter']:
        return 'WRONG TRAINING STATE'
    return 'runs'


@functools.cache
def _compiled(path: Path) -> CodeType:
    return compile(path.read_text(), str(path), 'exec')


def _become(path: Path, args: tuple[str, ...], folder: Path, log: Path) -> None:
    """Be the tool, and end with it."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        with open(log, 'wb') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        # Not those of a test runner, which keeps what it captures elsewhere.
        sys.stdout, sys.stderr = (open(number, 'w', closefd=False) for number in (1, 2))
        sys.argv = [str(path), *args]
        # Formatting the config, for log and checkpoints, would take half the time of a case.
        Config.pretty_text = property(lambda self: write(self.to_dict()))
        exec(_compiled(path), {'__name__': '__main__', '__file__': str(path)})
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _judge_exit(code: int, output: str) -> str:
    if code == 124:
        return 'HANG'
    if code < 0:
        return f'CRASH, signal {-code}'
    if code == 0:
        return 'runs'
    return 'refused' if _message(output) else 'NO MESSAGE'


def _message(output: str) -> str:
    """Ours, if it stands right above the traceback."""
    pattern = r'(?s)\nERROR: (?:(?!\nERROR: |\nTraceback \().)*\n\n(?=Traceback \()'
    found = re.search(pattern, output)
    return ' '.join(found[0].split())[:400] if found else ''


def _without_paths(text: str, folder: Path) -> str:
    """A log that does not depend on where everything lies."""
    for place in (folder, sysconfig.get_path('purelib'), ROOT, sysconfig.get_path('stdlib')):
        text = text.replace(f'{place}/', '')
    return text


def _named(output: str) -> set[str]:
    """The keys that a message lists; ``blocks.[0-1].bias`` are two."""
    found = set()
    for line in re.findall(r'(?m)^\s+(?:missing|unexpected|misshapen|unusable): (.*)$', output):
        for word in re.split(r', (?![^(]*\))(?![^\[]*\])', line):
            names = ['']
            for part in re.split(r'(\[[\d,-]+\])', word.split(' ')[0]):
                choices = [part]
                if part.startswith('['):
                    runs = [run.split('-') for run in part[1:-1].split(',')]
                    choices = [str(n) for r in runs for n in range(int(r[0]), int(r[-1]) + 1)]
                names = [name + choice for name in names for choice in choices]
            found.update(names)
    return found


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--count', type=int, default=600, help='mutants')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='log')
    parser.add_argument('--keep', type=Path, help='folder for what failures printed')
    args = parser.parse_args()
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
