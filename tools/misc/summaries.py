"""Reads the summaries of runs in docs/results/, for tables and figures."""

import re
from dataclasses import dataclass

import numpy as np

__all__ = ['METRICS', 'Pair', 'metrics_of', 'paired_differences', 'pairs_of', 'values_of']

#: metric in a summary -> header
METRICS = {
    'top1': 'top-1 (%)',
    'miou': 'linear mIoU (%)',
    'pcontext': 'PASCAL Context mIoU (%)',
    'cocostuff': 'COCO-Stuff mIoU (%)',
    'in_context': 'in-context mIoU (%)',
    'knn': 'k-NN (%)',
}
#: the rows of make demo-growth
_SIZE = re.compile(r'(ViT|LocAtViT), width (\d+), (\d+) images')


def values_of(row: dict, metric: str) -> np.ndarray:
    """A metric of one model, seed by seed."""
    return np.array([run[metric] for run in row['runs']])


def metrics_of(summary: dict) -> list[str]:
    """The metrics that a model of the summary has."""
    runs = [run for row in summary['rows'] for run in row['runs']]
    return [metric for metric in METRICS if any(metric in run for run in runs)]


def paired_differences(row: dict, first: dict, metric: str) -> np.ndarray:
    """A metric of one model minus that of the first, for the seeds that both have."""
    count = min(len(first['runs']), len(row['runs']))
    return values_of(row, metric)[:count] - values_of(first, metric)[:count]


@dataclass(frozen=True)
class Pair:
    """ViT and LocAtViT of one width, pretrained on the same images.

    Attributes:
        width: channels of a token.
        images: number of images in pretraining.
        plain, locat: the rows of ViT and LocAtViT.
    """

    width: int
    images: int
    plain: dict
    locat: dict

    def gains(self, metric: str) -> np.ndarray:
        """LocAtViT minus ViT, seed by seed."""
        return paired_differences(self.locat, self.plain, metric)


def pairs_of(summary: dict) -> list[Pair]:
    """The pairs of a summary of ``make demo-growth``, by width, then by number of images.

    Raises:
        ValueError: if the name of a row gives no model, width and number of images, or a row has
            no partner.
    """
    found: dict[tuple[int, int], dict[str, dict]] = {}
    for row in summary['rows']:
        size = _SIZE.fullmatch(row['name'])
        if size is None:
            raise ValueError(f'{row["name"]!r} is not "MODEL, width WIDTH, COUNT images"')
        model, width, images = size.groups()
        found.setdefault((int(width), int(images)), {})[model] = row
    alone = [f'width {w}, {n} images' for (w, n), rows in found.items() if len(rows) < 2]
    if alone:
        raise ValueError(f'only one of ViT and LocAtViT has {"; ".join(alone)}')
    return [Pair(*size, rows['ViT'], rows['LocAtViT']) for size, rows in sorted(found.items())]
