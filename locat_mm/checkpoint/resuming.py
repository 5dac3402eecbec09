"""Check that a checkpoint has everything a resumed run needs; mmengine ignores missing parts."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from .fitting import check_fit, list_keys

__all__ = ['check_average', 'check_resumable', 'check_training_state']

#: States of torch's optimizers with the shape of their parameter.
_SHAPED = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'exp_inf', 'momentum_buffer', 'square_avg')
#: Optimizers with the same states for every parameter.
_UNIFORM = (
    *(torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.NAdam),
    *(torch.optim.RAdam, torch.optim.RMSprop, torch.optim.SGD),
)
_EMA_PREFIX = 'module.'


def check_resumable(content: Any, source: str, has_schedule: bool) -> None:
    """Check that a checkpoint is one of a training run.

    Args:
        content: of the file, from :func:`locat_mm.checkpoint.read_content`.
        source: what to call it in the message.
        has_schedule: the run has parameter schedulers.

    Raises:
        ValueError: if a part is missing or of another kind.
    """
    content = content if isinstance(content, Mapping) else {}
    wanted = {'meta': dict, 'optimizer': dict, 'message_hub': dict}
    if has_schedule:
        wanted['param_schedulers'] = (list, dict)  # type: ignore[assignment]
    problems = [key for key, kind in wanted.items() if not isinstance(content.get(key), kind)]
    if 'meta' not in problems:
        for key in ('epoch', 'iter'):
            value = content['meta'].get(key)
            if not isinstance(value, int) or value < 0:
                problems.append(f'meta.{key} (it is {value!r})')
    if 'message_hub' not in problems:
        parts = ('log_scalars', 'runtime_info', 'resumed_keys')
        hub = content['message_hub']
        problems += [f'message_hub.{k}' for k in parts if not isinstance(hub.get(k), Mapping)]
    if problems:
        raise ValueError(
            f'{source} cannot be resumed from, for want of {", ".join(problems)}. To start from '
            'its weights alone, leave out --resume and set load_from'
        )


def check_average(model: nn.Module, checkpoint: dict) -> None:
    """Check that a checkpoint's averaged weights, if it has any, fit the model.

    Args:
        model: the runner's, unwrapped; not the sharded one but the whole one.
        checkpoint: its content; averaged weights are renamed to the model's names.

    Raises:
        ValueError: if they do not.
    """
    average = checkpoint.get('ema_state_dict')
    if average is None:
        return
    if not isinstance(average, Mapping):
        raise ValueError(f'ema_state_dict of the checkpoint is {type(average).__name__}')
    weights = {
        key.removeprefix(_EMA_PREFIX): value
        for key, value in average.items()
        if key.startswith(_EMA_PREFIX)
    }
    fitted = check_fit(model, weights, 'ema_state_dict of the checkpoint')
    others = {key: value for key, value in average.items() if not key.startswith(_EMA_PREFIX)}
    average = {f'{_EMA_PREFIX}{key}': value for key, value in fitted.state.items()}
    checkpoint['ema_state_dict'] = {**others, **average}


def check_training_state(runner: Any, model: nn.Module, checkpoint: dict) -> None:
    """Check that optimizer and schedule of a checkpoint are those of the run.

    Args:
        runner: mmengine's, with its optimizer built.
        model: the runner's, unwrapped.
        checkpoint: its content.

    Raises:
        ValueError: if they are not.
    """
    if isinstance(getattr(runner, 'optim_wrapper', None), OptimWrapper):
        names = {id(value): name for name, value in model.named_parameters()}
        _check_optimizer(runner.optim_wrapper.optimizer, names, checkpoint['optimizer'])
    schedulers, saved = runner.param_schedulers, checkpoint.get('param_schedulers')
    if isinstance(schedulers, list) and isinstance(saved, list):
        if len(schedulers) != len(saved):
            raise ValueError(
                f'the checkpoint has {len(saved)} param_schedulers, the config {len(schedulers)}'
            )
        for index, state in enumerate(saved):
            if not all(isinstance(state.get(k), int) for k in ('last_step', '_global_step')):
                raise ValueError(f'param_schedulers.{index} of the checkpoint knows no last step')


def _check_optimizer(optimizer: Any, names: dict[int, str], saved: Mapping) -> None:
    groups, entries = saved.get('param_groups'), saved.get('state')
    if not isinstance(groups, list) or not isinstance(entries, Mapping):
        raise ValueError('the optimizer of the checkpoint has no param_groups or no state')
    own_sizes = [len(group['params']) for group in optimizer.param_groups]
    sizes = [len(group['params']) for group in groups]
    if own_sizes != sizes:
        raise ValueError(
            f'the optimizer of the checkpoint is of another model or config: it has {sum(sizes)} '
            f'parameters in {len(sizes)} groups, this run has {sum(own_sizes)} in {len(own_sizes)}'
        )
    for index, group in enumerate(groups):
        rate = group.get('lr')
        if not isinstance(rate, (int, float, Tensor)) or not math.isfinite(rate):
            raise ValueError(f'the optimizer of the checkpoint has {rate!r} as lr of group {index}')
    numbers = [number for group in groups for number in group['params']]
    strays = [key for key in entries if key not in numbers]
    if strays:
        raise ValueError(f'the optimizer of the checkpoint has state for no parameter: {strays}')
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    # Others, such as Adafactor, have other states for vectors than for matrices.
    is_uniform = isinstance(optimizer, _UNIFORM)
    parts = {part for entry in entries.values() for part in entry} if is_uniform else set()
    fresh = []
    for number, parameter in zip(numbers, parameters, strict=True):
        name = names.get(id(parameter), f'parameter {number}')
        if number not in entries:
            if parameter.requires_grad:
                fresh.append(name)
            continue
        _check_entry(entries[number], parameter, parts, name)
    if fresh and entries:
        print_log(
            f'the optimizer of the checkpoint has no state for {list_keys(fresh)}: right only if '
            'they had no gradient yet',
            'current',
            logging.WARNING,
        )


def _check_entry(entry: Mapping, parameter: Tensor, parts: set[str], name: str) -> None:
    problem = None
    absent = sorted(parts - set(entry))
    if absent:
        problem = f'lacks {", ".join(absent)}'
    for part, value in entry.items():
        if not isinstance(value, Tensor):
            continue
        if part in _SHAPED and value.shape != parameter.shape:
            shapes = f'{tuple(value.shape)} instead of {tuple(parameter.shape)}'
            problem = f'has {part} of shape {shapes}'
        elif part in _SHAPED and not value.is_floating_point():
            problem = f'has {part} as {value.dtype}'
        elif not torch.isfinite(value).all():
            problem = f'has NaN or infinity in {part}'
    if problem is not None:
        raise ValueError(f'the optimizer of the checkpoint {problem} for {name}')
