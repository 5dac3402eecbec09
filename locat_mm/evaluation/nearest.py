"""Exact nearest neighbours by cosine similarity, and their weighted votes for a class."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ['check_neighbours', 'knn_predict', 'nearest_neighbours', 'unit_rows', 'weighted_vote']


def unit_rows(features: Tensor) -> Tensor:
    """Scale rows ``[N, D]`` to unit length, in float32; rows of zeros stay zero."""
    return F.normalize(features.float(), dim=1)


@torch.no_grad()
def nearest_neighbours(
    queries: Tensor, bank: Tensor, k: int, query_chunk: int = 1024, bank_chunk: int = 65536
) -> tuple[Tensor, Tensor]:
    """The k rows of a bank with the largest inner products, for every query.

    For rows of unit length (:func:`unit_rows`) the inner product is the cosine similarity. The
    search is exact and computes all products in float32, also under autocast. It needs memory for
    a bank chunk in float32 and for ``query_chunk × bank_chunk`` similarities (256 MiB by default).
    It runs on the device of the queries. The bank may be on another device.

    Args:
        queries: ``[Q, D]``, of any floating type.
        bank: ``[N, D]``, of any floating type.
        k: neighbours per query.
        query_chunk: queries in one matrix product.
        bank_chunk: rows of the bank in one matrix product.

    Returns:
        Similarities ``[Q, k]``, float32, the largest first, and their rows in the bank
        ``[Q, k]``, int64. Equal similarities have no defined order.

    Raises:
        ValueError: if the shapes do not fit, ``k`` is not within 1..N, a chunk is below 1, or
            a similarity is NaN or infinite.
    """
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise ValueError(
            f'queries [Q, D] and a bank [N, D] are needed, got {list(queries.shape)} and '
            f'{list(bank.shape)}'
        )
    if not 1 <= k <= len(bank):
        raise ValueError(f'k={k} neighbours are asked of a bank of {len(bank)} rows')
    if query_chunk < 1 or bank_chunk < 1:
        raise ValueError(f'chunks have at least one row, got {query_chunk=} and {bank_chunk=}')
    device = queries.device
    similarities = torch.full((len(queries), k), -torch.inf, device=device)
    indices = torch.zeros(len(queries), k, dtype=torch.int64, device=device)
    with torch.autocast(device.type, enabled=False):
        # The bank is the outer loop, so each chunk moves to the device once.
        for start in range(0, len(bank), bank_chunk):
            part = bank[start : start + bank_chunk].to(device, torch.float32)
            for first in range(0, len(queries), query_chunk):
                rows = slice(first, first + query_chunk)
                found, at = (queries[rows].float() @ part.T).topk(min(k, len(part)), dim=1)
                found = torch.cat([similarities[rows], found], dim=1)
                at = torch.cat([indices[rows], at + start], dim=1)
                similarities[rows], order = found.topk(k, dim=1)
                indices[rows] = at.gather(1, order)
    # topk sorts NaN as the largest number, so every NaN is in the result.
    if not similarities.isfinite().all():
        raise ValueError('the features hold NaN or infinity, so they have no nearest neighbours')
    return similarities, indices


def weighted_vote(
    similarities: Tensor, labels: Tensor, num_classes: int, temperature: float
) -> Tensor:
    """Votes of neighbours for their classes, each with the weight exp(similarity / temperature).

    Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018,
    section 3.4. The weights are divided by the nearest neighbour's weight. This keeps them finite
    at any temperature and does not change the order of the classes.

    Args:
        similarities: ``[Q, k]``.
        labels: classes of the neighbours ``[Q, k]``, int64, within 0..num_classes-1.
        num_classes: columns of the result.
        temperature: of the weights.

    Returns:
        votes ``[Q, num_classes]``, float32.

    Raises:
        ValueError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    nearest = similarities.amax(dim=1, keepdim=True)
    weights = ((similarities - nearest) / temperature).exp().float()
    votes = weights.new_zeros(len(labels), num_classes)
    return votes.scatter_add_(1, labels, weights)


def knn_predict(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    k: Sequence[int],
    temperature: float = 0.07,
    top: int = 5,
) -> dict[int, Tensor]:
    """Predict classes by the votes of the nearest neighbours.

    Args:
        queries: rows of unit length ``[Q, D]``.
        bank: rows of unit length ``[N, D]``.
        labels: classes of the bank ``[N]``, int64.
        k: numbers of neighbours; each number gives a prediction.
        temperature: of the weights exp(similarity / temperature).
        top: classes per query.

    Returns:
        for each number of neighbours, classes ``[Q, top]``, most votes first. There are fewer
        columns if the bank's largest label is below ``top`` − 1. Classes without a vote come last,
        in no defined order. So a class that is not in the bank never comes first.

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


def check_neighbours(k: int | Sequence[int]) -> tuple[int, ...]:
    """The numbers of neighbours as a tuple.

    Raises:
        ValueError: if it is empty, or an entry is no positive int.
    """
    numbers = (k,) if isinstance(k, int) else tuple(k)
    if not numbers or any(not isinstance(n, int) or n < 1 for n in numbers):
        raise ValueError(f'k must be positive whole numbers, got {k!r}')
    return numbers
