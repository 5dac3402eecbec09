"""The check that a loaded checkpoint belongs to the model and to the run."""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from ...checkpoint import (
    Fit,
    ReadAhead,
    check_average,
    check_fit,
    check_resumable,
    check_training_state,
    unwrap,
)
from ...helpers import doing, innermost
from ...mmengine_internals import built_loop, is_resuming
from ...registry import HOOKS, register

__all__ = ['CheckpointFitHook']


@register(HOOKS)
class CheckpointFitHook(Hook):
    """Renames a loaded checkpoint's weights to the model's names, and checks that they fit.

    mmengine accepts a checkpoint of another model: weights that do not fit stay random. Here
    testing and resuming are strict, also about averaged weights, optimizer and schedule. A start
    from ``load_from`` logs what does not fit, and fails only if nothing fits the model or its
    backbone. Official names (timm's and the authors') are understood.
    :func:`locat_mm.engine.build_runner` registers this hook; in a config for other tools it is
    ``custom_hooks=[dict(type='locat_mm.CheckpointFitHook')]``.

    Args:
        model: what the weights must fit; by default the runner's model. A sharded model needs
            the whole one here; it may be on the meta device.
        strict: be strict also about a start; official weights must then fill a whole classifier,
            or the backbone of a segmentor.
    """

    #: Before hooks that use the weights, such as EMAHook.
    priority = 'VERY_HIGH'

    def __init__(self, model: nn.Module | None = None, strict: bool = False) -> None:
        self.model = model
        self.strict = strict
        self._early: tuple[ReadAhead, bool, Fit] | None = None

    def check_early(
        self, source: str, *, is_start: bool, is_resumed: bool, has_schedule: bool
    ) -> None:
        """Check a checkpoint before the run, and keep it until the runner loads it.

        Args:
            source: anything that :func:`locat_mm.checkpoint.read_state_dict` reads.
            is_start: training starts from its weights alone.
            is_resumed: training continues from it.
            has_schedule: the run has parameter schedulers.

        Raises:
            FileNotFoundError, ValueError: if it cannot be read, does not fit or is incomplete.
        """
        assert self.model is not None
        with doing('reading a checkpoint'):
            ahead = ReadAhead(source)
        fitted = self._fit(self.model, ahead.content, source, is_start)
        if is_resumed:
            check_resumable(ahead.content, source, has_schedule)
        self._early = ahead, is_start, fitted

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace the checkpoint's weights by those that fit, under the model's own names.

        Raises:
            ValueError: if they do not fit.
        """
        is_start = built_loop(runner, 'train') is not None and not is_resuming(runner)
        own = innermost(runner.model)
        model = own if self.model is None else self.model
        early, self._early = self._early, None
        if early is not None and early[0].content is checkpoint and early[1] == is_start:
            fitted = early[2]
        else:
            fitted = self._fit(model, checkpoint, 'the checkpoint', is_start)
        if fitted.problems:
            print_log(f'the checkpoint fits in part.{fitted.problems}', 'current', logging.WARNING)
        checkpoint['state_dict'] = fitted.state
        if is_start:
            # EMAHook starts a new average; mmpretrain's would exchange weights that do not fit.
            checkpoint.pop('ema_state_dict', None)
        else:
            check_average(model, checkpoint)
        if is_resuming(runner):
            check_training_state(runner, own, checkpoint)

    def _fit(self, model: nn.Module, checkpoint: Any, source: str, is_start: bool) -> Fit:
        return check_fit(
            model,
            unwrap(checkpoint, source),
            source,
            strict=self.strict or not is_start,
            whole=not is_start,
        )
