"""DINO's changes to gradients between the backward pass and the step (arXiv 2104.14294)."""

from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.optim import Optimizer

from ...helpers import innermost
from ...mmengine_internals import gradients_per_step
from ...registry import HOOKS, register

__all__ = ['DINOHook']


@register(HOOKS)
class DINOHook(Hook):
    """Clips the gradient of each tensor by itself, and freezes the prototypes at first.

    As in DINO's code: each tensor's gradient norm is limited, where mmengine's ``clip_grad`` limits
    the norm of all gradients together; and the head's last layer gets no step, no weight decay
    and no optimizer state in the first epochs. Its gradients are removed instead of setting
    ``requires_grad``, so that DistributedDataParallel expects the same gradients in all epochs.

    Args:
        max_norm: largest norm of one tensor's gradient; None for no limit.
        frozen_epochs: epochs without a step of the last layer.

    Raises:
        ValueError: if ``max_norm`` is not positive or ``frozen_epochs`` negative; in training, if
            it does not run by epochs, or with a fused optimizer, which gets scaled gradients.
        TypeError: in training, if the model's head has no ``last_layer``.
    """

    def __init__(self, max_norm: float | None = 3.0, frozen_epochs: int = 1) -> None:
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f'max_norm must be positive, got {max_norm}')
        if frozen_epochs < 0:
            raise ValueError(f'frozen_epochs must not be negative, got {frozen_epochs}')
        self.max_norm = max_norm
        self.frozen_epochs = frozen_epochs
        self._handle: Any = None

    def before_train(self, runner: Runner) -> None:
        """Register a hook before the optimizer's step."""
        model: Any = innermost(runner.model)
        optimizer = runner.optim_wrapper.optimizer
        last_layer = getattr(getattr(model, 'head', None), 'last_layer', None)
        if last_layer is None:
            raise TypeError(
                f'DINOHook needs a head with last_layer, as DINOHead: {type(model).__name__} '
                'has none'
            )
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'DINO is scheduled by epochs, got {type(runner.train_loop).__name__}: set '
                'train_cfg.by_epoch=True'
            )
        if getattr(optimizer, '_step_supports_amp_scaling', False):
            raise ValueError('DINOHook needs unscaled gradients: set fused=False in the optimizer')
        # The teacher is updated once per optimizer step, which may sum several batches.
        model.teacher.interval = gradients_per_step(runner.optim_wrapper)
        before_step = partial(self._before_step, runner, last_layer)
        self._handle = optimizer.register_step_pre_hook(before_step)

    def after_train(self, runner: Runner) -> None:
        self._handle.remove()

    def _before_step(
        self, runner: Runner, last_layer: nn.Module, optimizer: Optimizer, *_: Any
    ) -> None:
        if self.max_norm is not None:
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    nn.utils.clip_grad_norm_(parameter, self.max_norm)
        if runner.epoch < self.frozen_epochs:
            for parameter in last_layer.parameters():
                parameter.grad = None
