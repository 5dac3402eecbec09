"""Mutants: whole files whose weights or training state differ from what the model needs."""

from collections.abc import Callable

import numpy as np
import torch

from .mutants import Maker, Mutant

__all__ = ['dtypes', 'foreign', 'keys', 'shapes', 'training_state', 'values']


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
