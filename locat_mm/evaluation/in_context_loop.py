"""The test loop of in-context segmentation."""

from typing import Any

import torch
from mmengine.runner import TestLoop
from mmengine.runner.amp import autocast

from ..helpers import innermost
from ..registry import LOOPS, register
from .bank import build_bank_loader, iterate_bank
from .in_context_segmentor import InContextSegmentor

__all__ = ['InContextTestLoop']


@register(LOOPS)
class InContextTestLoop(TestLoop):
    """mmengine's ``TestLoop`` that first fills the bank of an :class:`InContextSegmentor`.

    Each process memorizes its part of the bank's images and receives the other parts.

    Args:
        runner, dataloader, evaluator, fp16: mmengine's.
        bank_dataloader: config of the bank's loader. It gives every image once and in order
            (``sampler=dict(type='DefaultSampler', shuffle=False)``). Its pipeline resizes images
            and masks together, so ``LoadAnnotations`` stands before ``Resize``.

    Raises:
        ValueError: if the bank's loader repeats or shuffles images.
        TypeError: if the model is no :class:`InContextSegmentor`.
    """

    def __init__(
        self, runner, dataloader, evaluator, bank_dataloader: dict, fp16: bool = False
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.bank_loader: Any = build_bank_loader(runner, bank_dataloader)
        model = innermost(runner.model)
        if not isinstance(model, InContextSegmentor):
            raise TypeError(
                f'InContextTestLoop tests an InContextSegmentor, got a {type(model).__name__}'
            )
        self.model = model

    def run(self) -> dict:
        """Fill the bank, test, empty the bank, and return the metrics."""
        try:
            return super().run()
        finally:
            self.model.forget()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Segment one batch. Before the first batch, fill the bank."""
        if idx == 0:
            self._fill()
        super().run_iter(idx, data_batch)

    def _fill(self) -> None:
        self.model.start_bank(len(self.bank_loader.dataset))
        for batch, indices in iterate_bank(self.bank_loader, 'in-context bank'):
            data: Any = self.model.data_preprocessor(batch, False)
            masks = [sample.get('gt_sem_seg') for sample in data['data_samples']]
            if any(mask is None for mask in masks):
                raise ValueError('the pipeline of bank_dataloader needs LoadAnnotations')
            shapes = {tuple(mask.data.shape) for mask in masks}
            if len(shapes) > 1:
                raise ValueError(f'masks of a batch of the bank differ in size: {sorted(shapes)}')
            images = data['inputs']
            stacked = torch.cat([mask.data for mask in masks]).to(images.device)
            stacked[len(indices) :] = self.model.ignore_index  # repeated images
            with autocast(enabled=self.fp16):
                self.model.memorize(images, stacked, indices)
        self.model.finish_bank()
