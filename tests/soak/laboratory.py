"""Small models with a checkpoint each, and the tools run on mutants of them, in forks."""

import contextlib
import functools
import gc
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import CodeType

import matplotlib.pyplot  # noqa: F401  imported by mmengine's visualizer, in every fork
import torch
from mmengine.config import Config
from mmengine.utils.dl_utils import collect_env
from mmpretrain.utils import register_all_modules as import_mmpretrain
from mmseg.utils import register_all_modules as import_mmseg

from locat_mm.config import load_config
from tests.support import ROOT, demo_config

from . import changed_states, damaged_files, hostile_files
from .config_mutants import mutate, write
from .mutants import Maker, Mutant
from .subjects import SMALL, STOCK, SUBJECTS
from .verdicts import BACKBONE, RIGHT, judge_exit, judge_resumed, message, must_load, named

__all__ = ['Laboratory']

# Once for all forks.
import_mmpretrain(init_default_scope=False)
import_mmseg(init_default_scope=False)
collect_env()

#: seconds after which a case hangs
LIMIT = 60
#: Function that makes a mutant -> how often it is chosen, in relation to the others.
FAMILIES = {
    damaged_files.whole: 4,
    damaged_files.truncated: 2,
    damaged_files.flipped: 3,
    damaged_files.flipped_weight: 2,
    damaged_files.flipped_header: 2,
    damaged_files.no_checkpoint: 2,
    damaged_files.other_content: 2,
    changed_states.keys: 4,
    changed_states.shapes: 2,
    changed_states.dtypes: 3,
    changed_states.values: 2,
    changed_states.training_state: 4,
    changed_states.foreign: 2,
    hostile_files.hostile: 6,
    hostile_files.program_in_meta: 1,
}


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
            config = load_config(str(demo_config(stem)), {**SMALL, **overrides})
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
        verdict = judge_exit(code, output)
        if verdict == 'runs' and not (self.folder / 'run' / 'stepped').exists():
            # The hook itself may be what is missing.
            verdict = 'runs' if 'custom_hooks' in note else 'nothing done'
        return f'config {name} {road}: {note}', verdict, message(output)

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
        verdict = judge_exit(code, output)
        if marker.exists():
            verdict = 'CODE EXECUTED'
        elif verdict in RIGHT:
            verdict = self._judge(name, road, mutant, verdict, output)
        note = f'{family.__name__}: {mutant.note}'.replace(str(self.folder), '')
        return f'checkpoint {name} {road}: {note}', verdict, message(output)

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
        is_right = must_load(own, name, road, mutant)
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
        listed = named(output)
        if road == 'init_cfg':  # of a backbone, which has no prefix
            listed |= {BACKBONE + key for key in listed}
        for key, value in own.items():
            if key in given and given[key].shape == value.shape:
                if not torch.equal(loaded['model'][key], given[key].to(value.dtype)):
                    return f'WRONG WEIGHTS {key}'
            elif key not in listed:
                return f'SILENT PARTIAL LOAD without {key}'
        strays = set(given) - set(own)
        if road == 'init_cfg':  # takes the backbone's part; final norms are optional
            strays = {k for k in strays if k.startswith(BACKBONE) and '.norm.' not in k}
        if strays - listed:
            return f'SILENT PARTIAL LOAD, {min(strays - listed)} left over'
        if road == 'resume':
            return judge_resumed(loaded, self.contents[name])
        return verdict


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
