"""Configs with something wrong. Used by mutations.py."""

import copy
import random
from collections.abc import Iterator
from typing import Any

__all__ = ['mutate', 'write']

#: Values of every kind, to stand where others belong.
VALUES = (None, True, 0, -1, -0.5, float('nan'), 10**30, '', 'nowhere', [], {}, [1, 2], [None])
VALUES += ({'type': 'nowhere'}, {'type': None}, '../../../nowhere', (3,), b'x')
TYPES = ('Nowhere', 'mmseg.Nowhere', 'nowhere.X', 'ResNet', 'SGD', 'Runner', 'LinearLR', 'Accuracy')
TYPES += ('LoadImageFromFile', 'locat_mm.LocAtViT', 'CrossEntropyLoss', 'EpochBasedTrainLoop')
SYNTAX = (')', '(', "'", '\n  x = 1', '\nmodel = ', '\nimport nowhere', '\nmodel = nowhere')
SYNTAX += ("\n_base_ = './nowhere.py'", '\nraise ValueError(3)', '\x00', '\n1 / 0', '\nmodel = 3')
SYNTAX += ("\ncustom_imports = dict(imports=['nowhere'], allow_failed_imports=False)",)


def mutate(config: dict, rng: random.Random) -> tuple[str, str]:
    """One mutation of a config.

    Returns:
        its text, and what was done.
    """
    config = copy.deepcopy(config)
    kinds = ['dropped', 'typo', 'value', 'type', 'syntax', 'classes', 'path']
    kind = rng.choices(kinds, [3, 3, 6, 2, 1, 1, 1])[0]
    nodes = [*_nodes(config, '')]
    if kind == 'syntax':
        added = rng.choice(SYNTAX)
        return f'{write(config)}{added}\n', f'bad syntax, {added!r} at the end'
    if kind == 'type':
        nodes = [node for node in nodes if node[2] == 'type']
    elif kind == 'classes':
        nodes = [node for node in nodes if node[2] in ('num_classes', 'in_channels', 'embed_dim')]
    elif kind == 'path':
        nodes = [n for n in nodes if n[2] in ('data_root', 'data_prefix', 'checkpoint', 'img_path')]
    where, parent, key = rng.choice(nodes)
    note = f'{where} {kind}'
    if kind == 'dropped':
        del parent[key]
    elif kind == 'typo' and isinstance(parent, dict):
        parent[_misspell(str(key), rng)] = parent.pop(key)
        note = f'{where} misspelt {[*parent][-1]}'
    else:
        choices: Any = {'type': TYPES, 'classes': (1, 3, 1000), 'path': ('nowhere', '/', '')}
        values = choices.get(kind, VALUES)
        if str(key).startswith('max_'):  # of epochs: would run, and for ever
            values = [value for value in values if value != 10**30]
        parent[key] = rng.choice(values)
        note = f'{where} = {parent[key]!r}'
    return write(config), note


def write(config: dict) -> str:
    """A config as Python."""
    names = [name for name in config if str(name).isidentifier()]
    lines = [f'{name} = {config[name]!r}' for name in names]
    return "nan = float('nan')\n" + '\n'.join(lines) + '\ndel nan\n'


def _nodes(tree: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Everything in a config: where it is, what it is in, and its key there."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, child in children:
        where = f'{path}.{key}' if path else str(key)
        yield where, tree, key
        if isinstance(child, (dict, list)):
            yield from _nodes(child, where)


def _misspell(key: str, rng: random.Random) -> str:
    place = rng.randrange(len(key))
    return key[:place] + rng.choice(['', 'x', key[place] * 2]) + key[place + 1 :]
