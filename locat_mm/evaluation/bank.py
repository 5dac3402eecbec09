"""The bank of an evaluation by neighbours: a pass over a data set, shared by all processes."""

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

__all__ = ['build_bank_loader', 'check_storage', 'gather_rows', 'walk']

#: Seconds between two lines of progress.
LOG_INTERVAL = 10.0


def build_bank_loader(runner: Runner, dataloader: dict | DataLoader) -> DataLoader:
    """The loader of a bank.

    Raises:
        ValueError: if it would not give every image once, in order, or there is none.
    """
    diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
    loader = runner.build_dataloader(dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed)
    sampler: Any = loader.sampler
    in_order = isinstance(sampler, DefaultSampler) and sampler.round_up and not sampler.shuffle
    if not in_order or loader.drop_last:
        raise ValueError(
            'bank_dataloader must give every image once and in order, got '
            f'sampler={type(sampler).__name__}, shuffle={getattr(sampler, "shuffle", None)}, '
            f'drop_last={loader.drop_last}: '
            "set sampler=dict(type='DefaultSampler', shuffle=False) and drop_last=False"
        )
    if not len(loader.dataset):  # type: ignore[arg-type]
        raise ValueError('the data set of bank_dataloader is empty')
    return loader


def walk(loader: DataLoader, name: str) -> Iterator[tuple[Any, int]]:
    """Batches, each with the place of its first image in this process's part; logs progress.

    Image i of a part is image ``i · world_size + rank`` of the data set (mmengine's
    DefaultSampler); those past its end are repetitions that fill up the parts.
    """
    start = logged = time.monotonic()
    seen = 0
    for number, batch in enumerate(loader, 1):
        yield batch, seen
        seen += loader.batch_size or 1
        now = time.monotonic()
        if now - logged > LOG_INTERVAL or number == len(loader):
            left = (now - start) / number * (len(loader) - number)
            print_log(f'{name} [{number}/{len(loader)}]  eta: {left:.0f} s', 'current')
            logged = now


def places(first: int, count: int, size: int) -> tuple[list[int], int]:
    """Where ``count`` images of this process's part stand in a data set of ``size`` images.

    Returns:
        indices of those that are no repetitions, and how many there are.
    """
    rank, world_size = get_dist_info()
    indices = [(first + i) * world_size + rank for i in range(count)]
    kept = [index for index in indices if index < size]
    return kept, len(kept)


def gather_rows(rows: Tensor) -> Tensor:
    """All processes' rows, in the order of the processes, on each of them.

    Args:
        rows: ``[N, ...]``; N may differ between processes.
    """
    if get_dist_info()[1] == 1:
        return rows
    counts = [int(count) for count in all_gather(torch.tensor([len(rows)], device=rows.device))]
    # Straight into their place: lists of parts would hold everything twice.
    gathered = rows.new_empty(sum(counts), *rows.shape[1:])
    for rank, part in enumerate(gathered.split(counts)):
        if rank == get_rank():
            part.copy_(rows)
        if part.numel():
            broadcast(part.view(torch.uint8), src=rank)  # as bytes: NCCL knows no int16
    return gathered


def check_storage(dtype: str) -> torch.dtype:
    """The type that a bank's features are kept in.

    Raises:
        ValueError: if it is neither ``'float32'`` nor ``'float16'``.
    """
    if dtype not in ('float32', 'float16'):
        raise ValueError(f"features are kept as 'float32' or 'float16', got {dtype!r}")
    return getattr(torch, dtype)
