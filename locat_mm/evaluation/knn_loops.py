"""k-NN evaluation of frozen features: do images of a class lie together?

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (2018), with
the settings of DINO (Caron et al., 2021): 10, 20, 100 and 200 neighbours, temperature 0.07.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast
from mmpretrain.structures import DataSample
from safetensors.torch import save_file
from torch import Tensor, nn

from ..helpers import check_choice, innermost
from ..registry import LOOPS, METRICS, register
from .bank import build_bank_loader, check_storage, gather_rows, places, walk
from .features import KINDS, vectors
from .nearest import nearest_neighbours, unit_rows, weighted_vote

__all__ = ['KNNAccuracy', 'KNNTestLoop', 'KNNValLoop', 'knn_predict']


def check_neighbours(k: int | Sequence[int]) -> tuple[int, ...]:
    """The numbers of neighbours, as a tuple.

    Raises:
        ValueError: if there is none, or one is no positive int.
    """
    numbers = (k,) if isinstance(k, int) else tuple(k)
    if not numbers or any(not isinstance(n, int) or n < 1 for n in numbers):
        raise ValueError(f'k must be positive whole numbers, got {k!r}')
    return numbers


def knn_predict(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    k: Sequence[int],
    temperature: float = 0.07,
    top: int = 5,
) -> dict[int, Tensor]:
    """The classes that a query's neighbours vote for.

    Args:
        queries: rows of unit length ``[Q, D]``.
        bank: rows of unit length ``[N, D]``.
        labels: classes of the bank ``[N]``, int64.
        k: numbers of neighbours that vote, each by itself.
        temperature: a neighbour votes with the weight exp(similarity / temperature).
        top: classes per query.

    Returns:
        for every number of neighbours, classes ``[Q, top]``, most votes first; of fewer columns if
        the bank's largest label leaves fewer classes. Classes without a vote come last, in no
        defined order; a class that the bank lacks is never predicted first.

    Raises:
        ValueError: if a k is larger than the bank, or the temperature is not positive.
    """
    num_classes = int(labels.max()) + 1
    similarities, indices = nearest_neighbours(queries, bank, max(k))
    near = labels.to(queries.device)[indices]  # [Q, max(k)]
    return {
        n: weighted_vote(similarities[:, :n], near[:, :n], num_classes, temperature)
        .topk(min(top, num_classes), dim=1)
        .indices
        for n in k
    }


class _KNN:
    """Stands before mmengine's ``ValLoop`` or ``TestLoop`` in a loop's bases.

    In place of the model's own prediction, the k nearest images of a bank vote. Before the first
    batch every process extracts its part of the bank, and gets the others' parts; then it
    classifies its part of the loop's own data. The bank takes 4 bytes × N × D on every device (2
    with ``dtype='float16'``; 1.97 GB for ImageNet at a width of 384), and 2 + 1/W times that on W
    devices while it is gathered and brought into order.

    Args:
        runner, dataloader, evaluator, fp16: mmengine's. The evaluator is
            ``dict(type='locat_mm.KNNAccuracy')``.
        bank_dataloader: config of the bank: every image once and in order
            (``sampler=dict(type='DefaultSampler', shuffle=False)``), with its label, through the
            test pipeline.
        k: numbers of neighbours.
        temperature: a neighbour votes with the weight exp(similarity / temperature).
        features: ``'cls'`` the class token of the backbone's last output; ``'avg'`` its mean
            patch (of a convolutional backbone, the pooled map); ``'neck'`` what the neck beside the
            backbone makes of it, such as PRR's class token. Heads are not run.
        backbone: dotted name of the backbone in the model. A self-supervised model may hold two.
        dtype: ``'float32'`` or ``'float16'``, how the bank is kept.
        features_out: file (.safetensors) for the features and labels of bank and queries.

    Raises:
        ValueError: if the bank's loader repeats or shuffles images, it has fewer images than k,
            or an argument is none of its choices.
    """

    stage: ClassVar[str]
    runner: Any
    dataloader: Any
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
        self._size = len(self.bank_loader.dataset)  # type: ignore[arg-type]
        if max(self.k) > self._size:
            raise ValueError(f'k={max(self.k)} is more than the {self._size} images of the bank')
        self._bank: tuple[Tensor, Tensor] | None = None  # [N, D], [N]
        self._queries: list[tuple[Tensor, Tensor]] = []

    def run(self) -> dict:
        """Go through bank and queries; return the metrics."""
        try:
            metrics = super().run()  # type: ignore[misc]
            if self.features_out is not None:
                self._save()
            return metrics
        finally:
            self._bank = None
            self._queries.clear()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Classify one batch; before the first, extract the bank."""
        if idx == 0:
            self._bank = self._collect()
        assert self._bank is not None
        self.runner.call_hook(f'before_{self.stage}_iter', batch_idx=idx, data_batch=data_batch)
        queries, targets, samples = self._extract(data_batch)
        if self.features_out is not None:
            self._queries.append((queries.cpu(), targets.cpu()))
        found = knn_predict(queries, *self._bank, self.k, self.temperature)
        # On the CPU in one go, not sample by sample.
        found = {n: classes.cpu() for n, classes in found.items()}
        targets = targets.cpu()
        for i, sample in enumerate(samples):
            sample.set_gt_label(targets[i])
            sample.set_pred_label(found[self.k[0]][i, 0])
            sample.set_field({n: classes[i] for n, classes in found.items()}, 'knn_labels')
        self.evaluator.process(data_samples=samples, data_batch=data_batch)
        self.runner.call_hook(
            f'after_{self.stage}_iter', batch_idx=idx, data_batch=data_batch, outputs=samples
        )

    def _collect(self) -> tuple[Tensor, Tensor]:
        """Features and labels of the whole bank, in the order of its data set."""
        features, labels, indices = [], [], []
        for batch, first in walk(self.bank_loader, 'k-NN bank'):
            rows, targets, _ = self._extract(batch)
            kept, count = places(first, len(rows), self._size)
            features.append(rows[:count].to(self.storage))
            labels.append(targets[:count])
            indices.append(torch.tensor(kept, dtype=torch.int64, device=rows.device))
        order = gather_rows(torch.cat(indices)).argsort()
        bank = gather_rows(torch.cat(features))[order], gather_rows(torch.cat(labels))[order]
        print_log(
            f'k-NN bank: {len(order)} images, {bank[0].shape[1]} features '
            f'({self.features!r} of {self.backbone!r}), {bank[0].nbytes / 1e6:.1f} MB',
            'current',
        )
        return bank

    def _extract(self, data_batch: Any) -> tuple[Tensor, Tensor, list[DataSample]]:
        """Features [B, D] of unit length, labels [B] and data samples of a batch."""
        model = innermost(self.runner.model)
        backbone = _find(model, self.backbone)
        data: Any = model.data_preprocessor(data_batch, False)  # type: ignore[operator]
        images, samples = data['inputs'], data['data_samples']
        # mmpretrain's preprocessor of self-supervised models gives a list of views.
        views = images if isinstance(images, (list, tuple)) else [images]
        if len(views) != 1:
            raise ValueError(f'one view of every image is needed, the pipeline gives {len(views)}')
        with autocast(enabled=self.fp16):
            output = backbone(views[0])
            if self.features == 'neck':
                found = _read_neck(model, self.backbone, output)
            else:
                found = vectors(backbone, output, self.features)
        rows = unit_rows(found)
        return rows, _labels(samples).to(rows.device), samples

    def _save(self) -> None:
        """Write what the loop saw, in the order of the data sets."""
        assert self._bank is not None
        rows, targets = (torch.cat(parts) for parts in zip(*self._queries, strict=True))
        size = len(self.dataloader.dataset)
        kept, count = places(0, len(rows), size)
        order = gather_rows(torch.tensor(kept, dtype=torch.int64)).argsort()
        queries, labels = (gather_rows(part[:count])[order] for part in (rows, targets))
        if not is_main_process():
            return
        path = Path(str(self.features_out))
        path.parent.mkdir(parents=True, exist_ok=True)
        content = dict(
            bank=self._bank[0].cpu(),
            bank_labels=self._bank[1].cpu(),
            queries=queries,
            query_labels=labels,
        )
        metadata = dict(features=self.features, backbone=self.backbone)
        save_file(content, path, metadata=metadata)
        print_log(f'features written to {path}', 'current')


@register(LOOPS)
class KNNValLoop(_KNN, ValLoop):  # type: ignore[misc]
    """k-NN evaluation in validation, of a model in training too."""

    __doc__ = f'{__doc__}\n\n{_KNN.__doc__}'
    stage = 'val'


@register(LOOPS)
class KNNTestLoop(_KNN, TestLoop):  # type: ignore[misc]
    """k-NN evaluation in testing."""

    __doc__ = f'{__doc__}\n\n{_KNN.__doc__}'
    stage = 'test'


@register(METRICS)
class KNNAccuracy(BaseMetric):
    """Accuracy of the neighbours' votes, in percent: ``knn/top1_k10``, ``knn/top1_k20``, ...

    Args:
        topk: the right class must be among that many classes with the most votes; at most 5.
        collect_device, prefix, collect_dir: mmengine's.

    Raises:
        ValueError: if an entry of ``topk`` is not within 1..5.
    """

    default_prefix = 'knn'

    def __init__(
        self,
        topk: int | Sequence[int] = 1,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        self.topk = check_neighbours(topk)
        if max(self.topk) > 5:
            raise ValueError(f'the loops hand over 5 classes an image, got {topk=}')

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """
        Raises:
            ValueError: if the samples do not come from a k-NN loop.
        """
        for sample in data_samples:
            if 'knn_labels' not in sample:
                raise ValueError(
                    'KNNAccuracy needs the loop to be locat_mm.KNNValLoop or locat_mm.KNNTestLoop'
                )
            hits = {k: labels == sample['gt_label'] for k, labels in sample['knn_labels'].items()}
            self.results.append(
                {f'top{n}_k{k}': bool(hit[:n].any()) for k, hit in hits.items() for n in self.topk}
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {key: 100 * sum(hit[key] for hit in results) / len(results) for key in results[0]}


def _find(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        parts = ', '.join(child for child, _ in model.named_children())
        raise ValueError(
            f'{type(model).__name__} has no {name!r} (from features= and backbone=); its parts are '
            f'{parts}'
        ) from error


def _read_neck(model: nn.Module, backbone: str, output: Any) -> Tensor:
    """One vector per image ``[B, C]`` from the neck that stands beside a backbone."""
    owner = backbone.rpartition('.')[0]
    neck = _find(model, f'{owner}.neck' if owner else 'neck')
    output = neck(output)
    output = output[-1] if isinstance(output, (tuple, list)) else output
    if output.ndim != 2:
        raise ValueError(
            f"features='neck' needs [B, C], {type(neck).__name__} gives {list(output.shape)}"
        )
    return output


def _labels(samples: list | None) -> Tensor:
    """The classes ``[B]`` of a batch."""
    labels = [sample.get('gt_label') for sample in samples or ()]
    if not labels or any(label is None or label.numel() != 1 for label in labels):
        raise ValueError('k-NN evaluation needs one label per image, in bank and queries')
    return torch.stack([label.reshape(()) for label in labels])
