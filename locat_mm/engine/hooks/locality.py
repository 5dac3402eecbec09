"""Log during training how local the attention of a vision transformer is."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ...analysis import AttentionLayer, class_tokens, cls_similarity, find_backbone, find_layers
from ...helpers import innermost
from ...registry import HOOKS, register

__all__ = ['LocalityHook']


@register(HOOKS)
class LocalityHook(Hook):
    """Logs for each layer GAug's Gaussians and how similar the patches are to [CLS].

    Scalars of mmengine's visualizer, for every attention layer, counted from 0:

    - ``locality/layer03/sigma2``: mean variance of the Gaussians, Σ of the paper (arXiv
      2603.04892), in squared patches, over patches, heads and both axes;
    - ``locality/layer03/alpha``: their mean amplitude, in logits;
    - ``locality/layer03/similarity``: mean cosine similarity of the patches to [CLS] after the
      layer's block, see :func:`locat_mm.analysis.cls_similarity`.

    Models without GAug log no Gaussians, and models without a class token no similarity. The log
    file gets the same values in one line. The values come from the training forward of one
    iteration on the main process (the mean, if there are several forwards, as in multi-crop
    training). Other iterations have no hooks and no extra cost; a logged one waits for the device
    once.

    In a config: ``custom_hooks=[dict(type='locat_mm.LocalityHook', interval=100)]``. Not for
    compiled models.

    Args:
        interval: iterations between two logged ones.

    Raises:
        ValueError: if ``interval`` is below 1, or the model has nothing to log.
    """

    def __init__(self, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}')
        self.interval = interval
        self._seen: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Find the layers."""
        backbone = find_backbone(innermost(runner.model))
        self._layers = find_layers(backbone)
        self._num_class_tokens, self._num_prefix_tokens = class_tokens(backbone)
        if not self._num_class_tokens and not any(layer.has_gaug for layer in self._layers):
            raise ValueError(
                f'LocalityHook has nothing to log: {type(backbone).__name__} has neither GAug nor '
                'a class token'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Register the hooks in iterations to log."""
        if not self.every_n_train_iters(runner, self.interval) or not is_main_process():
            return
        self._seen = defaultdict(list)
        for number, layer in enumerate(self._layers):
            self._register(f'locality/layer{number:02d}', layer)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the values and remove the hooks."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        means = torch.stack([torch.stack(values).mean() for values in self._seen.values()])
        scalars = dict(zip(self._seen, means.tolist(), strict=True))  # the only wait for the device
        self._seen = {}
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        groups = defaultdict(list)
        for name, value in scalars.items():
            groups[name.rpartition('/')[2]].append(f'{value:.3g}')
        text = '; '.join(f'{name} {" ".join(values)}' for name, values in groups.items())
        runner.logger.info(f'locality of the layers at iteration {runner.iter + 1}: {text}')

    def _register(self, prefix: str, layer: AttentionLayer) -> None:
        if layer.has_gaug:
            hook = self._keep_gaussians(prefix)
            self._handles.append(layer.attn.gaug.register_forward_hook(hook))
        if self._num_class_tokens and layer.block is not None:
            hook = self._keep_similarity(f'{prefix}/similarity')
            self._handles.append(layer.block.register_forward_hook(hook))

    def _keep_gaussians(self, prefix: str) -> Callable:
        def hook(gaug: nn.Module, args: tuple, output: tuple[Tensor, Tensor]) -> None:
            for name, values in zip(('sigma2', 'alpha'), output, strict=True):
                self._seen[f'{prefix}/{name}'].append(values.detach().float().mean())

        return hook

    def _keep_similarity(self, name: str) -> Callable:
        def hook(block: nn.Module, args: tuple, tokens: Tensor) -> None:
            similarity = cls_similarity(
                tokens.detach(), self._num_prefix_tokens, self._num_class_tokens
            )
            self._seen[name].append(similarity.mean())

        return hook
