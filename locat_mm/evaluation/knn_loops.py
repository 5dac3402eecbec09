"""k-NN evaluation of frozen features: are images of one class near each other?

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (2018), with
the settings of DINO (Caron et al., 2021): 10, 20, 100 and 200 neighbours, temperature 0.07.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast
from mmpretrain.structures import DataSample
from safetensors.torch import save_file
from torch import Tensor, nn

from ..helpers import check_choice, innermost
from ..registry import LOOPS, register
from .bank import build_bank_loader, check_storage, gather_images, iterate_bank, own_images
from .features import KINDS, last_output, vectors
from .nearest import check_neighbours, knn_predict, unit_rows

__all__ = ['KNNTestLoop', 'KNNValLoop']


class _KNNLoop:
    """First base class of a loop; mmengine's ``ValLoop`` or ``TestLoop`` follows it.

    The k nearest images of a bank vote for the class, in place of the model's head. Before the
    first batch, each process computes the features of its part of the bank and receives the other
    parts. Then it classifies its part of the loop's own data. The bank needs 4 bytes × N × D on
    every device (2 bytes with ``dtype='float16'``; 1.97 GB for ImageNet with D = 384). Gathering
    and sorting it on W devices needs 2 + 1/W times as much.

    Args:
        runner, dataloader, evaluator, fp16: mmengine's. The evaluator is
            ``dict(type='locat_mm.KNNAccuracy')``.
        bank_dataloader: config of the bank's loader. It gives every image with its label once and
            in order (``sampler=dict(type='DefaultSampler', shuffle=False)``), through the test
            pipeline.
        k: numbers of neighbours.
        temperature: of the weights exp(similarity / temperature) of the votes.
        features: ``'cls'`` the class token of the backbone's last output; ``'avg'`` its mean
            over the patches (of a convolutional backbone: over the map); ``'neck'`` the output of
            the neck beside the backbone, such as PRR's class token. Heads do not run.
        backbone: dotted name of the backbone in the model. A self-supervised model may have two.
        dtype: ``'float32'`` or ``'float16'``, type of the stored bank.
        features_out: file (.safetensors) for the features and labels of bank and queries.

    Raises:
        ValueError: if the bank's loader repeats or shuffles images or has fewer images than k, or
            if an argument is none of its choices.
    """

    STAGE: ClassVar[str]
    runner: Any
    dataloader: Any
    bank_loader: Any
    evaluator: Any

    def __init__(
        self,
        runner,
        dataloader,
        evaluator,
        bank_dataloader: dict,
        k: int | Sequence[int] = (10, 20, 100, 200),
        temperature: float = 0.07,
        features: str = 'cls',
        backbone: str = 'backbone',
        dtype: str = 'float32',
        features_out: str | None = None,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)  # type: ignore[call-arg]
        self.fp16 = fp16
        self.k = check_neighbours(k)
        check_choice('features', features, (*KINDS, 'neck'))
        if not temperature > 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        if features_out is not None and not str(features_out).endswith('.safetensors'):
            raise ValueError(f'features_out must end in .safetensors, got {features_out}')
        self.temperature, self.features, self.backbone = temperature, features, backbone
        self.storage = check_storage(dtype)
        self.features_out = features_out
        self.bank_loader = build_bank_loader(runner, bank_dataloader)
        bank_size = len(self.bank_loader.dataset)
        if max(self.k) > bank_size:
            raise ValueError(f'k={max(self.k)} is more than the {bank_size} images of the bank')
        self._bank: tuple[Tensor, Tensor] | None = None  # [N, D], [N]
        self._queries: list[tuple[Tensor, Tensor]] = []

    def run(self) -> dict:
        """Extract the bank, classify the queries, and return the metrics."""
        try:
            metrics = super().run()  # type: ignore[misc]
            if self.features_out is not None:
                self._save(self.features_out)
            return metrics
        finally:
            self._bank = None
            self._queries.clear()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Classify one batch. The first batch of a run also extracts the bank."""
        if self._bank is None:
            self._bank = self._extract_bank()
        self.runner.call_hook(f'before_{self.STAGE}_iter', batch_idx=idx, data_batch=data_batch)
        queries, targets, samples = self._extract(data_batch)
        if self.features_out is not None:
            self._queries.append((queries.cpu(), targets.cpu()))
        found = knn_predict(queries, *self._bank, self.k, self.temperature)
        # One copy to the CPU per batch, not per sample.
        found = {n: classes.cpu() for n, classes in found.items()}
        targets = targets.cpu()
        for i, sample in enumerate(samples):
            sample.set_gt_label(targets[i])
            sample.set_pred_label(found[self.k[0]][i, 0])
            sample.set_field({n: classes[i] for n, classes in found.items()}, 'knn_labels')
        self.evaluator.process(data_samples=samples, data_batch=data_batch)
        self.runner.call_hook(
            f'after_{self.STAGE}_iter', batch_idx=idx, data_batch=data_batch, outputs=samples
        )

    def _extract_bank(self) -> tuple[Tensor, Tensor]:
        """Features and labels of the whole bank, in the order of its data set."""
        features, labels = [], []
        for batch, indices in iterate_bank(self.bank_loader, 'k-NN bank'):
            rows, targets, _ = self._extract(batch)
            features.append(rows[: len(indices)].to(self.storage))
            labels.append(targets[: len(indices)])
        size = len(self.bank_loader.dataset)
        bank = gather_images(torch.cat(features), size), gather_images(torch.cat(labels), size)
        print_log(
            f'k-NN bank: {size} images, {bank[0].shape[1]} features '
            f'({self.features!r} of {self.backbone!r}), {bank[0].nbytes / 1e6:.1f} MB',
            'current',
        )
        return bank

    def _extract(self, data_batch: Any) -> tuple[Tensor, Tensor, list[DataSample]]:
        """Features [B, D] of unit length, labels [B] and data samples of a batch."""
        model: Any = innermost(self.runner.model)
        backbone = _find_module(model, self.backbone)
        data = model.data_preprocessor(data_batch, False)
        images, samples = data['inputs'], data['data_samples']
        # The preprocessor of mmpretrain's self-supervised models gives a list of views.
        views = images if isinstance(images, (list, tuple)) else [images]
        if len(views) != 1:
            raise ValueError(f'one view of every image is needed, the pipeline gives {len(views)}')
        with autocast(enabled=self.fp16):
            output = backbone(views[0])
            if self.features == 'neck':
                found = self._run_neck(model, output)
            else:
                found = vectors(backbone, output, self.features)
        rows = unit_rows(found)
        return rows, _stack_labels(samples).to(rows.device), samples

    def _run_neck(self, model: nn.Module, output: Any) -> Tensor:
        """One vector per image ``[B, C]`` from the neck beside the backbone."""
        owner, dot, _ = self.backbone.rpartition('.')
        neck = _find_module(model, f'{owner}{dot}neck')
        output = last_output(neck(output))
        if output.ndim != 2:
            raise ValueError(
                f"features='neck' needs [B, C], {type(neck).__name__} gives {list(output.shape)}"
            )
        return output

    def _save(self, features_out: str) -> None:
        """Write features and labels, in the order of the data sets."""
        assert self._bank is not None
        size = len(self.dataloader.dataset)
        count = len(own_images(size))
        queries, labels = (
            gather_images(torch.cat(parts)[:count], size)
            for parts in zip(*self._queries, strict=True)
        )
        if not is_main_process():
            return
        path = Path(features_out)
        path.parent.mkdir(parents=True, exist_ok=True)
        bank, bank_labels = (part.cpu() for part in self._bank)
        content = dict(bank=bank, bank_labels=bank_labels, queries=queries, query_labels=labels)
        save_file(content, path, metadata=dict(features=self.features, backbone=self.backbone))
        print_log(f'features written to {path}', 'current')


@register(LOOPS)
class KNNValLoop(_KNNLoop, ValLoop):  # type: ignore[misc]
    """k-NN evaluation in validation, also of a model in training."""

    __doc__ = f'{__doc__}\n\n{_KNNLoop.__doc__}'
    STAGE = 'val'


@register(LOOPS)
class KNNTestLoop(_KNNLoop, TestLoop):  # type: ignore[misc]
    """k-NN evaluation in testing."""

    __doc__ = f'{__doc__}\n\n{_KNNLoop.__doc__}'
    STAGE = 'test'


def _find_module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        parts = ', '.join(child for child, _ in model.named_children())
        raise ValueError(
            f'{type(model).__name__} has no {name!r} (from features= and backbone=); its parts are '
            f'{parts}'
        ) from error


def _stack_labels(samples: list[DataSample] | None) -> Tensor:
    """The classes ``[B]`` of a batch."""
    labels = [sample.get('gt_label') for sample in samples or ()]
    if not labels or any(label is None or label.numel() != 1 for label in labels):
        raise ValueError('k-NN evaluation needs one label per image, in bank and queries')
    return torch.stack([label.reshape(()) for label in labels])
