"""Mutants: files that would execute code when they are read."""

import functools
import os
import pickle
import subprocess
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from .mutants import Maker, Mutant

__all__ = ['hostile', 'program_in_meta']


class Payload:
    """Pickles as a call."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


def hostile(make: Maker) -> Mutant:
    """A pickle that would create the marker."""
    rng, marker = make.rng, str(make.marker)
    program = f'open({marker!r}, "w").close()'
    inner = pickle.dumps(Payload(os.mkdir, marker))
    nested = make.folder / 'nested.bin'
    nested.write_bytes(inner)
    payloads = {
        'os.system': Payload(os.system, f'touch {marker}'),
        'os.mkdir': Payload(os.mkdir, marker),
        'open': Payload(open, marker, 'w'),
        'eval': Payload(eval, program),
        'exec': Payload(exec, program),
        'Popen': Payload(subprocess.Popen, ['touch', marker]),
        'pickle.loads': Payload(pickle.loads, inner),
        'torch.load': Payload(functools.partial(torch.load, nested, weights_only=False)),
        'numpy.load': Payload(np.load, str(nested), None, True),
        'getattr': Payload(getattr, Payload(__import__, 'os'), 'system'),
        'timeit': Payload(timeit.timeit, program, 'pass', timeit.default_timer, 1),
        'a config': Payload(Config.fromstring, program, '.py'),
    }
    name = rng.choice([*payloads])
    bad = payloads[name]
    place = rng.choice(
        ['top', 'beside', 'state_dict', 'a weight', 'optimizer', 'meta', 'message_hub']
        + ['param_schedulers', 'ema_state_dict']
    )
    content: Any = {**make.content, 'x': bad}
    if place == 'top':
        content = bad
    elif place == 'a weight':
        content = {**make.content, 'state_dict': {**make.state, make.key(): bad}}
    elif place in ('optimizer', 'meta', 'message_hub'):
        content = {**make.content, place: {**make.content[place], 'x': bad}}
    elif place != 'beside':
        content = {**make.content, place: bad}
    form = rng.choice(['zip', 'older format', 'pickle', 'pickle as .safetensors'])
    path = make.folder / f'checkpoint{".safetensors" if "as" in form else ".pth"}'
    if form.startswith('pickle'):
        path.write_bytes(pickle.dumps(content, protocol=rng.randint(2, 5)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    return Mutant(path, f'{name} in {place}, {form}', None)


def program_in_meta(make: Maker) -> Mutant:
    """mmengine runs ``meta.config`` of what it resumes from as a config."""
    program = f'open({str(make.marker)!r}, "w").close()'
    meta = {**make.content['meta'], 'config': program}
    return make.save('a program as meta.config', {**make.content, 'meta': meta}, resumable=True)
