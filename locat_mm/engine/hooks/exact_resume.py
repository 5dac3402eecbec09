"""Random numbers computed from seed, process and step, so that a resumed run is the same run."""

import functools
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, Sampler

from ...mmengine_internals import (
    is_resuming,
    restart_iterator,
    restart_sampler,
    set_iteration,
    uses_rank_seeds,
)
from ...registry import HOOKS, register

__all__ = ['ExactResumeHook']

#: Separate random streams.
_STEP, _SAMPLE, _LOADER = range(3)


@register(HOOKS)
class ExactResumeHook(Hook):
    """Gives a resumed run exactly the same weights as a run that never stopped.

    mmengine saves weights, optimizer and schedule, but neither the state of the random generators
    nor the position in the data. Here they need not be saved, because they follow from the seed:
    before every iteration the generators of Python, NumPy and torch are seeded from (seed,
    process, iteration), and before every sample those of its worker from (seed, process, epoch,
    position). So augmentations also differ between epochs (with mmengine's worker seeds and
    workers that restart each epoch they do not), and do not depend on the number of workers. A
    resumed run skips the samples already used without loading them, also within an epoch.

    In a config: ``custom_hooks=[dict(type='locat_mm.ExactResumeHook')]`` with a fixed
    ``randomness.seed``. Exact on CPUs; on GPUs if the kernels are deterministic. With three
    processes or more, DDP sums gradients in another order from its second iteration on, unless
    ``find_unused_parameters=True``; a resumed run starts with a first iteration again and logs a
    warning. A run that is resumed with another number of processes, another batch size or other
    data continues with a warning that states the change: its batches differ. It continues at the
    same fraction of the epoch.

    Raises:
        RuntimeError: if the processes do not resume from the same iteration, for example because
            only one node has the checkpoint.
        ValueError: if the training data is not sampled by a batch sampler around a sampler.
    """

    #: Before hooks that draw random numbers or use the loader.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._resumed: dict = {}  # meta of the checkpoint

    def before_train(self, runner: Runner) -> None:
        """Seed the samples by their position, and skip those already used."""
        loop: Any = runner.train_loop
        loader: Any = loop.dataloader
        seed = _common_seed(runner)
        _check_agreement(loop.iter)
        sampler = _seed_loader(loader, seed)
        is_by_iter = hasattr(loop, 'dataloader_iterator')
        epoch, done = loop.epoch, loop.iter
        self._warn(runner, is_by_iter)
        _warn_of_order(runner)
        if not is_by_iter:
            length = self._resumed.get('epoch_length')
            if length is None:  # saved by mmengine's hook, at the end of an epoch
                length = done // epoch if epoch and done % epoch == 0 else len(loader)
            done = (done - epoch * length) * len(loader) // length
            set_iteration(loop, epoch * len(loader) + done)
        elif not _is_infinite(sampler.sampler):
            epoch, done = divmod(done, len(loader))
            sampler.set_epoch(epoch)
        sampler.skip(done * loader.batch_sampler.batch_size)
        if is_by_iter:  # a new iterator, because upstream's may have started its workers
            iterator = restart_iterator(loop, epoch)
            asks_for_all = not hasattr(iterator, 'skip_iter')  # upstream's loop reads what it skips
            loop.dataloader_iterator = _Skipped(iterator, loop.iter if asks_for_all else 0)
        if loop.iter:
            print_log(f'going on after iteration {loop.iter}, batch {done} of its pass', 'current')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the random numbers of the iteration: dropout, stochastic depth, mixup."""
        _seed_everything(_mix(_common_seed(runner), _STEP, get_rank(), runner.iter))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record what batches depend on."""
        checkpoint['meta'].update(_circumstances(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if is_resuming(runner):
            self._resumed = checkpoint.get('meta', {})

    def _warn(self, runner: Runner, is_by_iter: bool) -> None:
        """Log what makes the resumed run differ."""
        changes = [
            f'{name} was {self._resumed[name]} and is {value}'
            for name, value in _circumstances(runner).items()
            if self._resumed.get(name, value) != value
        ]
        if not changes:
            return
        text = 'the run continues with other batches and random numbers than without the stop'
        if not is_by_iter and 'epoch_length' in changes[-1]:
            text += ', and a learning rate that is scheduled by iteration ends at another value'
        print_log(f'{", ".join(changes)}: {text}', 'current', logging.WARNING)


def _circumstances(runner: Runner) -> dict[str, int]:
    """What batches depend on, besides the seed, which a resumed run takes from its checkpoint."""
    loader: Any = runner.train_dataloader
    return dict(
        world_size=get_world_size(),
        batch_size=loader.batch_sampler.batch_size,
        epoch_length=len(loader),
    )


def _common_seed(runner: Runner) -> int:
    """The seed that all processes share, without the rank."""
    return int(runner.seed) - (get_rank() if uses_rank_seeds(runner) else 0)


def _warn_of_order(runner: Runner) -> None:
    """DDP rebuilds its buckets after the first iteration, also of a resumed run."""
    model: Any = runner.model
    if not runner.iter or get_world_size() < 3 or not isinstance(model, DistributedDataParallel):
        return
    if not model.find_unused_parameters:
        print_log(
            f'{get_world_size()} processes sum the first gradients of a resumed run in another '
            'order, so it is exact only up to rounding. With find_unused_parameters=True from the '
            'start it is exact',
            'current',
            logging.WARNING,
        )


def _check_agreement(iteration: int) -> None:
    ends = torch.tensor([iteration, -iteration])
    all_reduce(ends, 'max')
    if ends.sum():
        raise RuntimeError(
            f'processes are resumed from different iterations, {-int(ends[1])} to {int(ends[0])}: '
            'every node needs the same checkpoints in its work directory'
        )


class SeededIndex(int):
    """An index into a data set together with the numbers that seed its sample."""

    where: tuple[int, ...]

    def __new__(cls, index: int, where: tuple[int, ...]) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.where = where
        return self

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.where)


class SeededSampler(Sampler):
    """Another sampler's indices, each with its seed; can skip the first ones once."""

    def __init__(self, sampler: Any, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed
        self._skipped = 0

    def skip(self, num_samples: int) -> None:
        self._skipped = num_samples

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[SeededIndex]:
        epoch = 0 if _is_infinite(self.sampler) else getattr(self.sampler, 'epoch', 0)
        first, self._skipped = self._skipped, 0
        for position, index in enumerate(self.sampler):
            if position >= first:
                where = (self.seed, _SAMPLE, get_rank(), epoch, position)
                yield SeededIndex(index, where)


class _Skipped:
    """A loop's iterator that returns None for the first batches, without reading them."""

    def __init__(self, iterator: Any, num_batches: int) -> None:
        self.iterator = iterator
        self.num_batches = num_batches

    def __iter__(self) -> '_Skipped':
        return self

    def __next__(self) -> Any:
        if self.num_batches:
            self.num_batches -= 1
            return None
        return next(self.iterator)

    def skip_iter(self, num_batches: int) -> None:
        """Do nothing: the sampler has skipped them."""


def _seed_loader(loader: Any, seed: int) -> SeededSampler:
    batches = loader.batch_sampler
    if not hasattr(batches, 'sampler') or not hasattr(batches, 'batch_size'):
        raise ValueError(
            'ExactResumeHook needs a batch sampler around a sampler, as DefaultSampler and '
            f'InfiniteSampler get; the training data is sampled by {type(batches).__name__}'
        )
    if hasattr(batches.sampler, 'seed'):
        batches.sampler.seed = seed  # a checkpoint's seed is known only after the loader is built
    restart_sampler(batches.sampler)
    batches.sampler = SeededSampler(batches.sampler, seed)
    kind: Any = type(loader.dataset)
    loader.dataset.__class__ = _seeded(kind)
    # Seeds of workers are drawn from this generator and not from torch's, which would shift it.
    loader.generator = torch.Generator().manual_seed(_mix(seed, _LOADER) % 2**63)
    return batches.sampler


@functools.cache
def _seeded(base: Any) -> Any:
    """A subclass of the data set's class that seeds before each sample."""

    class Seeded(base):
        def __getitem__(self, index: int) -> Any:
            if isinstance(index, SeededIndex):
                _seed_everything(_mix(*index.where))
                index = int(index)
            return super().__getitem__(index)

        def __reduce__(self) -> tuple:
            return _unpickle, (base, self.__dict__)

    Seeded.__name__, Seeded.__qualname__ = base.__name__, base.__qualname__
    Seeded.__module__ = base.__module__
    return Seeded


def _unpickle(base: Any, state: dict) -> Dataset:
    dataset = base.__new__(base)
    dataset.__dict__.update(state)
    dataset.__class__ = _seeded(base)
    return dataset


def _is_infinite(sampler: Any) -> bool:
    return isinstance(sampler, InfiniteSampler)


def _mix(*numbers: int) -> int:
    """One 64-bit seed from several numbers."""
    return int(np.random.SeedSequence([n % 2**64 for n in numbers]).generate_state(1, np.uint64)[0])


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: without an initialised GPU it records a stack trace every time.
    torch.default_generator.manual_seed(seed % 2**63)
    if torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork():
        torch.cuda.manual_seed_all(seed % 2**63)
