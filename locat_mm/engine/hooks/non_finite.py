"""Losses, gradients and weights that are not finite: the steps and runs that they stop."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ...checkpoint import read_state_dict, whole_checkpoints
from ...helpers import innermost, listed
from ...registry import HOOKS, register
from .exact_resume import ExactResumeHook
from .non_finite_source import bad_names, bad_state, find_source

__all__ = ['NonFiniteHook']


@register(HOOKS)
class NonFiniteHook(Hook):
    """Keeps NaN and infinity out of the weights, stops such runs, and finds the source.

    The optimizer skips a step whose gradients are not finite, so the weights stay finite. After
    ``max_consecutive`` iterations in a row with such gradients or such a loss the run ends; it
    ends at once if weights or buffers are not finite. The last batch then runs again with the
    same random numbers (those of :class:`ExactResumeHook`). The error names the first tensor that
    was not finite (an image, a parameter, a module's output, the loss or a gradient) and the last
    good checkpoint. Weights that are not finite are never saved.

    Steps that ``GradScaler`` (mixed precision) skips because gradients overflowed under a finite
    loss do not count: it lowers its scale.

    Every step waits for the gradient's norm, as with ``clip_grad``; mmengine waits for the loss in
    every iteration anyway.

    In a config: ``custom_hooks=[dict(type='locat_mm.NonFiniteHook')]``.

    Args:
        max_consecutive: iterations in a row with a loss or gradients that are not finite.
        check_interval: with several processes, iterations between two checks whether one of them
            must stop; then all stop. A single process stops at once.

    Raises:
        ValueError: if one of the two is below 1.
    """

    #: After EMAHook has put its weights into a checkpoint, and before anything is saved.
    priority = 'LOW'

    def __init__(self, max_consecutive: int = 3, check_interval: int = 10) -> None:
        for name, value in dict(
            max_consecutive=max_consecutive, check_interval=check_interval
        ).items():
            if value < 1:
                raise ValueError(f'{name} must be positive, got {value}')
        self.max_consecutive = max_consecutive
        self.check_interval = check_interval
        self._in_a_row = 0
        self._is_damaged = False  # weights or buffers
        self._stepped = self._refused = False  # in this iteration
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the optimizer's steps."""
        wrapper: Any = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self._handles = [w.optimizer.register_step_pre_hook(self._before_step) for w in wrappers]

    def after_train(self, runner: Runner) -> None:
        while self._handles:
            self._handles.pop().remove()

    @torch.compiler.disable
    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        """Prevent a step with gradients that are not finite."""
        self._stepped = True
        if getattr(optimizer, 'found_inf', None) is not None:
            return  # a fused optimizer, which skips the step as GradScaler tells it
        parameters = (p for group in optimizer.param_groups for p in group['params'])
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if not math.isfinite(norm):
            self._refused = True
            optimizer.zero_grad(set_to_none=True)  # parameters without a gradient do not change

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count iterations that are not finite, and stop after too many.

        Raises:
            FloatingPointError: after too many; in every process.
        """
        losses = {
            name: float(value.detach() if isinstance(value, Tensor) else value)
            for name, value in (outputs or {}).items()
            if 'loss' in name
        }
        bad = [f'{name} is {value}' for name, value in losses.items() if not math.isfinite(value)]
        if self._refused:
            bad.append('gradients are not finite, so this step was skipped')
        if bad:
            self._in_a_row += 1
            self._is_damaged |= bool(bad_state(runner.model))
            print_log(
                f'iteration {runner.iter + 1}: {"; ".join(bad)} ({self._in_a_row} in a row, '
                f'{self.max_consecutive} stop the run)',
                'current',
                logging.WARNING,
            )
        elif self._stepped:
            self._in_a_row = 0
        self._stepped = self._refused = False
        if self._must_stop(runner):
            raise FloatingPointError(self._explain(runner, batch_idx, data_batch))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights.

        Raises:
            FloatingPointError: if they are not finite; the checkpoint is not saved then.
        """
        weights = checkpoint['state_dict'], checkpoint.get('ema_state_dict', {})
        buffers = _buffers(runner)
        if any(bad := [name for state in weights for name in bad_names(state, buffers)]):
            raise FloatingPointError(
                f'the checkpoint of iteration {runner.iter + 1} is not saved: not finite are '
                f'{listed(bad)}. {_last_good_checkpoint(runner)}'
            )

    def _must_stop(self, runner: Runner) -> bool:
        is_enough = self._is_damaged or self._in_a_row >= self.max_consecutive
        if get_world_size() == 1:
            return is_enough
        if (runner.iter + 1) % self.check_interval:
            return False
        enough = torch.tensor(float(is_enough))
        all_reduce(enough, 'max')
        return bool(enough)

    def _explain(self, runner: Runner, batch_idx: int, data_batch: Any) -> str:
        for hook in runner.hooks:
            if isinstance(hook, ExactResumeHook):
                hook.before_train_iter(runner, batch_idx, data_batch)
        # In every process, because layers such as SyncBN wait for all.
        sources = all_gather_object(find_source(runner.model, data_batch, runner.optim_wrapper))
        checkpoint = _last_good_checkpoint(runner) if is_main_process() else ''
        checkpoint = all_gather_object(checkpoint)[0]
        first = min(stage for stage, _ in sources)  # later stages in other processes follow from it
        origin = '; '.join(
            text if len(sources) == 1 else f'{text} (process {rank})'
            for rank, (stage, text) in enumerate(sources)
            if text and stage == first
        ) or (
            'not found: the same batch, run again, gives finite numbers. Possible reasons: a '
            'faulty device, kernels that are not deterministic or, without ExactResumeHook, other '
            'random numbers'
        )
        return (
            f'iteration {runner.iter + 1}: losses or gradients are not finite. First to be so: '
            f'{origin}. {checkpoint} A run that is resumed unchanged fails here again: change the '
            'data, the learning rate or the precision first.'
        )


def _buffers(runner: Runner) -> set[str]:
    """Names of the model's buffers, and of their averages."""
    names = {name for name, _ in innermost(runner.model).named_buffers()}
    return names | {f'module.{name}' for name in names}


def _last_good_checkpoint(runner: Runner) -> str:
    """Name the newest whole checkpoint with finite weights."""
    buffers, path = _buffers(runner), None
    for path in whole_checkpoints(runner.work_dir):
        if not Path(path).is_file():
            return f'The last checkpoint is {path}; its weights were not checked.'
        try:
            bad = bad_names(read_state_dict(path), buffers)
        except ValueError as damage:
            print_log(f'skipped: {damage}', 'current', logging.WARNING)
            continue
        if not bad:
            return f'The last good checkpoint is {path} (--resume {path}).'
    if path is None:
        return f'{runner.work_dir} has no checkpoint to go back to.'
    return f'No checkpoint in {runner.work_dir} has finite weights.'
