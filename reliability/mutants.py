"""Checkpoints with something wrong, and what is in them all the same. Used by mutations.py."""

import copy
import functools
import json
import os
import pickle
import random
import subprocess
import timeit
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from safetensors.torch import save_file

__all__ = ['FAMILIES', 'Maker', 'Mutant']


@dataclass
class Mutant:
    """A file, and what a correct reader makes of it.

    Attributes:
        path: of the file.
        note: what was done to it.
        state: the weights that it holds by construction, or None if it must be refused.
        ema: the averaged weights beside them, likewise.
        resumable: optimizer, schedule and counts are as they were.
        loose: to refuse it is right as well.
    """

    path: Path
    note: str
    state: dict[str, torch.Tensor] | None
    ema: dict[str, torch.Tensor] | None = None
    resumable: bool = False
    loose: bool = False


class Maker:
    """Makes mutants of one checkpoint.

    Args:
        content: of a whole checkpoint, as mmengine writes it.
        others: state dicts of other models.
        folder: for the files.
        marker: a path that hostile files try to create.
        rng: of all choices.
    """

    def __init__(
        self, content: dict, others: list[dict], folder: Path, marker: Path, rng: random.Random
    ) -> None:
        self.content = copy.deepcopy(content)
        self.others = others
        self.folder = folder
        self.marker = marker
        self.rng = rng

    @property
    def state(self) -> dict[str, torch.Tensor]:
        return self.content['state_dict']

    def save(self, note: str, content: Any = None, **facts: Any) -> Mutant:
        """As torch saves; of ``facts`` the state is by default the content's."""
        path = self.folder / 'checkpoint.pth'
        content = self.content if content is None else content
        torch.save(content, path)
        return Mutant(path, note, **{'state': dict(self.state), 'ema': self.ema(), **facts})

    def ema(self) -> dict[str, torch.Tensor] | None:
        average = self.content.get('ema_state_dict')
        if average is None:
            return None
        return {k.removeprefix('module.'): v for k, v in average.items() if k.startswith('module.')}

    def safetensors(self, note: str, state: dict) -> Mutant:
        path = self.folder / 'checkpoint.safetensors'
        save_file({k: v.clone().contiguous() for k, v in state.items()}, path)
        return Mutant(path, note, dict(state))

    def key(self) -> str:
        """A parameter's, of one dimension at least."""
        return self.rng.choice([k for k, v in self.state.items() if v.ndim and v.numel() > 1])


def whole(make: Maker) -> Mutant:
    way = make.rng.choice(['as it is', 'older format', 'safetensors', 'module.', 'bare', 'model'])
    if way == 'safetensors':
        return make.safetensors(way, make.state)
    if way == 'older format':
        mutant = make.save(way, resumable=True)
        torch.save(make.content, mutant.path, _use_new_zipfile_serialization=False)
        return mutant
    if way == 'module.':
        state = {f'module.{key}': value for key, value in make.state.items()}
        return make.save(way, {**make.content, 'state_dict': state}, resumable=True)
    if way in ('bare', 'model'):
        return make.save(way, dict(make.state) if way == 'bare' else {'model': dict(make.state)})
    return make.save(way, resumable=True)


def truncated(make: Maker) -> Mutant:
    mutant = make.rng.choice([whole(make), make.safetensors('safetensors', make.state)])
    content = mutant.path.read_bytes()
    length = make.rng.choice([make.rng.randrange(len(content)), len(content) - 1, 1, 100])
    mutant.path.write_bytes(content[:length])
    return Mutant(mutant.path, f'{mutant.note}, {length} of {len(content)} bytes', None)


def flipped(make: Maker) -> Mutant:
    """Anywhere in a zip: refused, or a byte that has no meaning."""
    mutant = make.save('bytes flipped', resumable=True, loose=True)
    content = bytearray(mutant.path.read_bytes())
    # The outline of a zip lies at its end, and is a small part of it.
    start = make.rng.choice([0, len(content) - 6000])
    places = [make.rng.randrange(start, len(content)) for _ in range(make.rng.randint(1, 3))]
    for place in places:
        content[place] ^= make.rng.randint(1, 255)
    mutant.path.write_bytes(content)
    mutant.note += f' at {places}'
    return mutant


def flipped_weight(make: Maker) -> Mutant:
    """Inside a tensor. Only the zip has checksums; the other formats load what is there."""
    form = make.rng.choice(['zip', 'older format', 'safetensors'])
    key = make.key()
    make.state[key] = torch.randn_like(make.state[key])  # bytes that the file has once
    before = make.state[key].numpy().tobytes()
    state = {**make.state, key: make.state[key].clone()}
    if form == 'safetensors':
        mutant = make.safetensors(form, make.state)
    else:
        mutant = make.save(form, resumable=True)
        torch.save(make.content, mutant.path, _use_new_zipfile_serialization=form == 'zip')
    content = mutant.path.read_bytes()
    assert content.count(before) == 1
    after = bytearray(before)
    after[make.rng.randrange(len(after))] ^= make.rng.randint(1, 255)
    mutant.path.write_bytes(content.replace(before, bytes(after)))
    state[key] = torch.from_numpy(np.frombuffer(after, np.float32).copy()).view_as(state[key])
    mutant.note = f'{form}, a byte of {key} flipped'
    mutant.state = None if form == 'zip' else state
    return mutant


def flipped_header(make: Maker) -> Mutant:
    mutant = make.safetensors('safetensors, header flipped', make.state)
    content = bytearray(mutant.path.read_bytes())
    length = int.from_bytes(content[:8], 'little')
    place = make.rng.randrange(8 + min(length, 4000))
    content[place] ^= make.rng.randint(1, 255)
    mutant.path.write_bytes(content)
    return Mutant(mutant.path, f'{mutant.note} at {place}', _parse(content), loose=True)


def _parse(content: bytes) -> dict[str, torch.Tensor] | None:
    """safetensors by its specification, floats alone."""
    try:
        length = int.from_bytes(content[:8], 'little')
        header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
        header.pop('__metadata__', None)
        return {
            key: torch.from_numpy(
                np.frombuffer(data[slice(*entry['data_offsets'])], np.float32).copy()
            ).view(entry['shape'])
            for key, entry in header.items()
            if entry['dtype'] == 'F32'
        }
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError, OverflowError):
        return None


def no_checkpoint(make: Maker) -> Mutant:
    contents: dict[str, bytes | None] = {
        'empty': b'',
        'text': b'hello\n',
        'LFS pointer': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
        'HTML': b'<!DOCTYPE html><html><body>404</body></html>',
        'noise': make.rng.randbytes(5000),
        'zeros': bytes(5000),
        'missing': None,
        'folder': None,
        'another zip': None,
    }
    name = make.rng.choice([*contents])
    path = make.folder / make.rng.choice(['checkpoint.pth', 'checkpoint.safetensors'])
    content = contents[name]
    if content is not None:
        path.write_bytes(content)
    elif name == 'folder':
        path.mkdir()
    elif name == 'another zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('readme.txt', 'hello')
    return Mutant(path, f'{name} as {path.suffix}', None)


def other_content(make: Maker) -> Mutant:
    contents = {
        'a list': [1, 2],
        'a number': 3,
        'nothing': None,
        'a tensor': torch.ones(3),
        'no weights': {k: v for k, v in make.content.items() if k != 'state_dict'},
        'weights that are none': {**make.content, 'state_dict': {}},
        'weights that are text': {**make.content, 'state_dict': dict.fromkeys(make.state, 'x')},
        'weights that are a list': {**make.content, 'state_dict': [*make.state.values()]},
        'one weight None': {**make.content, 'state_dict': {**make.state, make.key(): None}},
    }
    name = make.rng.choice([*contents])
    mutant = make.save(name)
    torch.save(contents[name], mutant.path)
    mutant.state = None
    return mutant


def keys(make: Maker) -> Mutant:
    """Dropped, renamed, added."""
    way = make.rng.choice(
        ['dropped', 'backbone dropped', 'head dropped', 'renamed', 'added', 'all']
    )
    names = [*make.state]
    if way == 'dropped':
        chosen = make.rng.sample(names, make.rng.randint(1, 5))
    elif way in ('backbone dropped', 'head dropped'):
        chosen = [n for n in names if n.startswith('backbone.') == (way == 'backbone dropped')]
    else:
        chosen = names if way == 'all' else [make.rng.choice(names)]
    for name in chosen:
        value = make.state[name] if way == 'added' else make.state.pop(name)
        if way in ('renamed', 'added', 'all'):
            make.state[f'{make.rng.choice(["encoder", "x.y"])}.{name}'] = value
    way = 'all renamed' if way == 'all' else way
    if make.rng.random() < 0.3:
        return make.safetensors(f'safetensors, {way}', make.state)
    return make.save(f'{way}: {", ".join(chosen[:2])}', resumable=True)


def shapes(make: Maker) -> Mutant:
    key = make.key()
    value = make.state[key]
    changes = {'longer': torch.cat([value, value]), 'shorter': value[:-1], 'deeper': value[None]}
    changes['flat'] = value.flatten() if value.ndim > 1 else value[:, None]
    name = make.rng.choice([*changes])
    make.state[key] = changes[name].clone()
    return make.save(f'{key} {name}', resumable=True)


def dtypes(make: Maker) -> Mutant:
    dtype = make.rng.choice(
        [torch.half, torch.bfloat16, torch.double, torch.int32, torch.uint8, torch.bool]
        + [torch.complex64]
    )
    chosen = [make.key()] if make.rng.random() < 0.5 else [*make.state]
    for key in chosen:
        make.state[key] = make.state[key].to(dtype)
    return make.save(f'{dtype} for {chosen[0]} and {len(chosen) - 1} others', resumable=True)


def values(make: Maker) -> Mutant:
    key, value = make.key(), make.rng.choice([float('nan'), float('inf'), -float('inf')])
    make.state[key].view(-1)[0] = value
    return make.save(f'{value} in {key}', resumable=True)


def training_state(make: Maker) -> Mutant:
    """What resuming needs beside the weights; starting and testing do not."""
    rng, content = make.rng, make.content
    ways: dict[str, Callable] = {
        **{
            f'no {key}': lambda key=key: content.pop(key)
            for key in ('meta', 'optimizer', 'param_schedulers', 'message_hub')
        },
        **{
            f'meta.{key} {value!r}': lambda key=key, value=value: content['meta'].update(
                {key: value}
            )
            for key in ('iter', 'epoch')
            for value in (-3, 'many', None)
        },
        'optimizer without a group': lambda: content['optimizer']['param_groups'].pop(),
        'optimizer without groups': lambda: content['optimizer'].pop('param_groups'),
        'optimizer without state': lambda: content['optimizer'].pop('state'),
        'optimizer a list': lambda: content.update(optimizer=[1]),
        'no learning rate': lambda: content['optimizer']['param_groups'][0].pop('lr'),
        'learning rate NaN': lambda: content['optimizer']['param_groups'][0].update(lr=np.nan),
        'one schedule less': lambda: content['param_schedulers'].pop(),
        'schedule without its step': lambda: content['param_schedulers'][0].pop('last_step'),
        'message_hub empty': lambda: content.update(message_hub={}),
    }
    entries = content['optimizer']['state']
    entry = entries[rng.choice([*entries])]
    ways |= {
        'moment dropped': lambda: entry.pop('exp_avg'),
        'moment misshapen': lambda: entry.update(exp_avg=torch.ones(3, 5)),
        'moment NaN': lambda: entry['exp_avg_sq'].fill_(float('nan')),
        'moment integer': lambda: entry.update(exp_avg=entry['exp_avg'].int()),
        'moments of nothing': lambda: entries.update({10**6: dict(entry)}),
    }
    if make.ema() is not None:
        average = content['ema_state_dict']
        key = rng.choice([k for k in average if k.startswith('module.')])
        ways |= {
            'average dropped': lambda: average.pop(key),
            'average NaN': lambda: average[key].fill_(float('nan')),
            'average misshapen': lambda: average.update({key: torch.ones(2, 1, 3)}),
        }
    way = rng.choice([*ways])
    ways[way]()
    return make.save(way, resumable=False)


def foreign(make: Maker) -> Mutant:
    state = make.rng.choice(make.others)
    return make.save('of another model', dict(state_dict=state), state=dict(state), ema=None)


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


#: Function -> how often, in relation.
FAMILIES: dict[Callable[[Maker], Mutant], int] = {
    **{whole: 4, truncated: 2, flipped: 3, flipped_weight: 2, flipped_header: 2, no_checkpoint: 2},
    **{other_content: 2, keys: 4, shapes: 2, dtypes: 3, values: 2, training_state: 4, foreign: 2},
    **{hostile: 6, program_in_meta: 1},
}
