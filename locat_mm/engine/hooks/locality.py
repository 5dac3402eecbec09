"""Logs how local the attention of a vision transformer is during training."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ...analysis import (
    class_tokens,
    cls_similarity,
    find_backbone,
    find_layers,
    record_gaug_statistics,
)
from ...helpers import innermost
from ...registry import HOOKS, register

__all__ = ['LocalityHook']


@register(HOOKS)
class LocalityHook(Hook):
    """Logs what GAug learns and how similar patches become to [CLS], for each layer.

    Scalars of mmengine's visualizer, for each attention layer, counted from 0:

    - ``locality/layer03/sigma2``: mean variance of the Gaussians, Σ of the paper (arXiv
      2603.04892), in squared patches, over patches, heads and both axes;
    - ``locality/layer03/alpha``: their mean strength, in logits;
    - ``locality/layer03/correlation``: of rotated kernels, the mean size of the correlation ρ;
    - ``locality/layer03/similarity``: mean cosine similarity of the patches to [CLS] behind the
      layer's block, see :func:`locat_mm.analysis.cls_similarity`.

    A model without GAug has no ``sigma2`` and ``alpha``, one without class token no
    ``similarity``. The text log gets the same values in one line. They are those of the training
    forward pass of one iteration on the main process (the mean of several passes, as in
    multi-crop training). Other iterations have no hooks, so they cost nothing. A logged iteration
    waits for the device once.

    In a config: ``custom_hooks=[dict(type='locat_mm.LocalityHook', interval=100)]``. Not for
    compiled models.

    Args:
        interval: iterations from one log entry to the next.

    Raises:
        ValueError: if ``interval`` is below 1, or the model has neither GAug nor a class token.
    """

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}')
        self.interval = interval
        self._hooks = ExitStack()
        self._gaug: dict[str, list[Tensor]] = {}
        self._similarities: dict[str, list[Tensor]] = {}

    def before_train(self, runner: Runner) -> None:
        """Find the layers."""
        self._backbone = find_backbone(innermost(runner.model))
        self._layers = find_layers(self._backbone)
        self._num_class_tokens, self._num_prefix_tokens = class_tokens(self._backbone)
        if not self._num_class_tokens and not any(layer.has_gaug for layer in self._layers):
            raise ValueError(
                f'LocalityHook has nothing to log: {type(self._backbone).__name__} has neither '
                'GAug nor a class token'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start to record if this iteration is logged."""
        if not self.every_n_train_iters(runner, self.interval) or not is_main_process():
            return
        self._gaug = self._hooks.enter_context(record_gaug_statistics(self._backbone))
        self._similarities = defaultdict(list)
        for layer in self._layers:
            if self._num_class_tokens and layer.block is not None:
                hook = self._record_similarity(self._similarities[layer.name])
                self._hooks.callback(layer.block.register_forward_hook(hook).remove)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the recorded values."""
        self._hooks.close()
        means: dict[str, Tensor] = {}
        for number, layer in enumerate(self._layers):
            prefix = f'locality/layer{number:02d}'
            if gaug := self._gaug.get(f'{layer.name}.gaug'):
                mean = torch.stack(gaug).mean(0)
                means[f'{prefix}/sigma2'], means[f'{prefix}/alpha'] = mean[:2].mean(), mean[2]
                if len(mean) > 3:
                    means[f'{prefix}/correlation'] = mean[3]
            if similarities := self._similarities.get(layer.name):
                means[f'{prefix}/similarity'] = torch.stack(similarities).mean()
        self._gaug, self._similarities = {}, {}
        if not means:
            return
        values = torch.stack(list(means.values())).tolist()  # the one wait for the device
        runner.visualizer.add_scalars(dict(zip(means, values, strict=True)), step=runner.iter + 1)
        groups = defaultdict(list)
        for name, value in zip(means, values, strict=True):
            groups[name.rpartition('/')[2]].append(f'{value:.3g}')
        text = '; '.join(f'{name} {" ".join(group)}' for name, group in groups.items())
        runner.logger.info(f'locality of the layers at iteration {runner.iter + 1}: {text}')

    def _record_similarity(self, similarities: list[Tensor]) -> Callable:
        def hook(block: nn.Module, args: tuple, tokens: Tensor) -> None:
            similarity = cls_similarity(
                tokens.detach(), self._num_prefix_tokens, self._num_class_tokens
            )
            similarities.append(similarity.mean())

        return hook
