"""Mutants: whole checkpoints, files that are damaged, and files that are no checkpoints."""

import json
import zipfile

import numpy as np
import torch

from .mutants import Maker, Mutant

__all__ = [
    *('flipped', 'flipped_header', 'flipped_weight', 'no_checkpoint', 'other_content'),
    *('truncated', 'whole'),
]


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
