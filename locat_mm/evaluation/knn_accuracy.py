"""The metric of k-NN evaluation."""

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from ..registry import METRICS, register
from .nearest import check_neighbours

__all__ = ['KNNAccuracy']


@register(METRICS)
class KNNAccuracy(BaseMetric):
    """Accuracy of k-NN prediction in percent: ``knn/top1_k10``, ``knn/top1_k20``, ...

    Args:
        topk: the right class must be among so many classes with the most votes; at most 5.
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
