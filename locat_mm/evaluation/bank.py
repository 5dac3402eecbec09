"""The bank of an evaluation by neighbours: a pass over a data set, shared by all processes.

mmengine's DefaultSampler gives image ``i · world_size + rank`` of the data set to a process as its
i-th image. Past the end of the data set it repeats images, so that all parts are equally long.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import all_gather, broadcast, get_dist_info, get_rank
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from ..mmengine_internals import uses_rank_seeds

__all__ = [
    'build_bank_loader',
    'check_storage',
    'gather_images',
    'gather_rows',
    'iterate_bank',
    'own_images',
]

#: Seconds from one line of progress to the next.
LOG_INTERVAL = 10.0


def build_bank_loader(runner: Runner, dataloader: dict | DataLoader) -> DataLoader:
    """Build the loader of a bank.

    Raises:
        ValueError: if it does not give every image once and in order, or if there is no image.
    """
    loader = runner.build_dataloader(
        dataloader, seed=runner.seed, diff_rank_seed=uses_rank_seeds(runner)
    )
    sampler: Any = loader.sampler
    in_order = isinstance(sampler, DefaultSampler) and sampler.round_up and not sampler.shuffle
    if not in_order or loader.drop_last:
        raise ValueError(
            'bank_dataloader must give every image once and in order, got '
            f'sampler={type(sampler).__name__}, shuffle={getattr(sampler, "shuffle", None)}, '
            f'drop_last={loader.drop_last}: '
            "set sampler=dict(type='DefaultSampler', shuffle=False) and drop_last=False"
        )
    if not _size(loader):
        raise ValueError('the data set of bank_dataloader is empty')
    return loader


def check_storage(dtype: str) -> torch.dtype:
    """The type of a bank's stored features.

    Raises:
        ValueError: if it is neither ``'float32'`` nor ``'float16'``.
    """
    if dtype not in ('float32', 'float16'):
        raise ValueError(f"features are kept as 'float32' or 'float16', got {dtype!r}")
    return getattr(torch, dtype)


def own_images(size: int, start: int = 0, count: int | None = None) -> range:
    """Indices of this process's images in a data set, without repetitions.

    Args:
        size: images of the data set.
        start: first image of this process.
        count: number of its images; None: all.
    """
    rank, world_size = get_dist_info()
    end = size if count is None else min((start + count) * world_size + rank, size)
    return range(start * world_size + rank, end, world_size)


def iterate_bank(loader: DataLoader, name: str) -> Iterator[tuple[Any, range]]:
    """Yield batches and the indices of their images in the data set, and log progress.

    In the last batch there may be fewer indices than images. The images without index are
    repetitions.
    """
    start = logged = time.monotonic()
    for number, batch in enumerate(loader):
        batch_size = loader.batch_size or 1
        yield batch, own_images(_size(loader), number * batch_size, batch_size)
        done, now = number + 1, time.monotonic()
        if now - logged > LOG_INTERVAL or done == len(loader):
            left = (now - start) / done * (len(loader) - done)
            print_log(f'{name} [{done}/{len(loader)}]  eta: {left:.0f} s', 'current')
            logged = now


def gather_images(rows: Tensor, size: int) -> Tensor:
    """One row per image ``[size, ...]``, in the order of the data set, on all processes.

    Args:
        rows: of this process's images (:func:`own_images`).
        size: images of the data set.
    """
    world_size = get_dist_info()[1]
    indices = torch.cat([torch.arange(rank, size, world_size) for rank in range(world_size)])
    return gather_rows(rows)[indices.argsort().to(rows.device)]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of the processes, on all of them.

    Args:
        rows: ``[N, ...]``; N may differ between processes.
    """
    if get_dist_info()[1] == 1:
        return rows
    counts = [int(count) for count in all_gather(torch.tensor([len(rows)], device=rows.device))]
    # Each part is received in place, because a list of parts would need twice the memory.
    gathered = rows.new_empty(sum(counts), *rows.shape[1:])
    for rank, part in enumerate(gathered.split(counts)):
        if rank == get_rank():
            part.copy_(rows)
        if part.numel():
            broadcast(part.view(torch.uint8), src=rank)  # as bytes: NCCL has no int16
    return gathered


def _size(loader: DataLoader) -> int:
    dataset: Any = loader.dataset
    return len(dataset)
