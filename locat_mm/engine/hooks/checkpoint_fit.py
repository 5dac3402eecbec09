"""Hooks of mmengine's Runner."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ...checkpoint import check_average, check_fit, check_training_state, unwrap
from ...helpers import innermost
from ...registry import HOOKS, register

__all__ = ['CheckpointFitHook']


@register(HOOKS)
class CheckpointFitHook(Hook):
    """Brings a loaded checkpoint under the model's own names, and checks that it fits.

    mmengine lets a checkpoint of another model pass: what does not fit keeps its random
    weights. Here testing and resuming are strict, about averaged weights, optimizer and
    schedule too; starting from ``load_from`` logs what does not fit, and fails only if nothing
    does, or nothing of the backbone. Official names (timm's and the authors') are
    understood. :func:`locat_mm.engine.build_runner` registers this hook; in a config for other
    tools it is ``custom_hooks=[dict(type='locat_mm.CheckpointFitHook')]``.

    Args:
        model: what the weights must fit; by default the runner's model. A sharded model needs
            the whole one here; it may be on the meta device.
        strict: be strict when starting too; official weights then fill all of a classifier,
            or the backbone of a segmentor.
    """

    #: Before hooks that use the weights, such as EMAHook.
    priority = 'VERY_HIGH'

    def __init__(self, model: nn.Module | None = None, strict: bool = False) -> None:
        self.model = model
        self.strict = strict

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the fitting weights, under the model's own names, into the checkpoint.

        Raises:
            ValueError: if they do not fit.
        """
        # Only training builds the training loop.
        is_start = isinstance(runner._train_loop, BaseLoop) and not runner._resume
        model = innermost(runner.model)
        fitted = check_fit(
            model if self.model is None else self.model,
            unwrap(checkpoint, 'the checkpoint'),
            'the checkpoint',
            strict=self.strict or not is_start,
            whole=not is_start,
        )
        if fitted.problems:
            print_log(f'the checkpoint fits in part.{fitted.problems}', 'current', logging.WARNING)
        checkpoint['state_dict'] = fitted.state
        if is_start:
            # EMAHook averages anew; mmpretrain's would swap what does not fit.
            checkpoint.pop('ema_state_dict', None)
        else:
            check_average(model if self.model is None else self.model, checkpoint)
        if runner._resume:
            check_training_state(runner, model, checkpoint)
