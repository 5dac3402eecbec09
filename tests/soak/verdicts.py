"""What is right for a mutant, derived without the code under test, and what a tool made of it."""

import re

import torch

from .mutants import Mutant

__all__ = ['BACKBONE', 'RIGHT', 'judge_exit', 'judge_resumed', 'message', 'must_load', 'named']

BACKBONE = 'backbone.'
RIGHT = ('refused', 'runs')


def must_load(own: dict, name: str, road: str, mutant: Mutant) -> bool:
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


def judge_resumed(loaded: dict, content: dict) -> str:
    """The verdict on what a resumed run holds of a checkpoint."""
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


def judge_exit(code: int, output: str) -> str:
    """The verdict on how a tool ended."""
    if code == 124:
        return 'HANG'
    if code < 0:
        return f'CRASH, signal {-code}'
    if code == 0:
        return 'runs'
    return 'refused' if message(output) else 'NO MESSAGE'


def message(output: str) -> str:
    """The message of ours, if it stands right above the traceback."""
    pattern = r'(?s)\nERROR: (?:(?!\nERROR: |\nTraceback \().)*\n\n(?=Traceback \()'
    found = re.search(pattern, output)
    return ' '.join(found[0].split())[:400] if found else ''


def named(output: str) -> set[str]:
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
