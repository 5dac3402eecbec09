"""Randomness as a function of seed, process and step, so that a resumed run is the same run."""

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

#: Streams that must not meet.
_STEP, _SAMPLE, _LOADER = range(3)


@register(HOOKS)
class ExactResumeHook(Hook):
    """A run that is stopped and resumed ends with the bits of one that never stopped.

    mmengine saves weights, optimizer and schedule, but not the state of the random generators,
    nor where in the data the run was. Here nothing of that has to be saved, because it follows
    from the seed: before every iteration the generators of Python, NumPy and torch are seeded
    from (seed, process, iteration), and before every sample those of its worker from
    (seed, process, epoch, position). So augmentations also differ from epoch to epoch, as they
    do not with mmengine's worker seeds and workers that start anew, and do not depend on the
    number of workers. When resuming, what was trained on is skipped without being loaded, in the
    middle of an epoch too.

    In a config: ``custom_hooks=[dict(type='locat_mm.ExactResumeHook')]`` with a fixed
    ``randomness.seed``. Exact on CPUs; on GPUs as far as the kernels are deterministic. With three
    processes and more, DDP sums gradients in another order from its second iteration on, unless
    ``find_unused_parameters=True``; a resumed run begins with a first one, and says so. A run
    that is resumed on another number of processes, with another batch size or on other data goes
    on with a warning that says what changed: batches differ. An epoch is taken up at the same part
    of it.

    Raises:
        RuntimeError: if the processes are not resumed from the same iteration, as when only one
            node has the checkpoint.
        ValueError: if the training data is not sampled by a batch sampler around a sampler.
    """

    #: Before hooks that draw numbers or read the loader.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._resumed: dict = {}  # meta of the checkpoint

    def before_train(self, runner: Runner) -> None:
        """Seed the data loader by position, and skip what was trained on."""
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
            if length is None:  # mmengine's own checkpoint: saved where an epoch ended
                length = done // epoch if epoch and done % epoch == 0 else len(loader)
            done = (done - epoch * length) * len(loader) // length
            set_iteration(loop, epoch * len(loader) + done)
        elif not _is_infinite(sampler.sampler):
            epoch, done = divmod(done, len(loader))
            sampler.set_epoch(epoch)
        sampler.skip(done * loader.batch_sampler.batch_size)
        if is_by_iter:  # upstream's iterator starts its workers at once: not before this point
            iterator = restart_iterator(loop, epoch)
            asks_for_all = not hasattr(iterator, 'skip_iter')  # upstream, for what is to be skipped
            loop.dataloader_iterator = _Skipped(iterator, loop.iter if asks_for_all else 0)
        if loop.iter:
            print_log(f'going on after iteration {loop.iter}, batch {done} of its pass', 'current')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the iteration draws: dropout, stochastic depth, mixing of images."""
        _seed_everything(_mix(_common_seed(runner), _STEP, get_rank(), runner.iter))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note what batches depend on."""
        checkpoint['meta'].update(_circumstances(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if is_resuming(runner):
            self._resumed = checkpoint.get('meta', {})

    def _warn(self, runner: Runner, is_by_iter: bool) -> None:
        """Say what is not exact."""
        changes = [
            f'{name} was {self._resumed[name]} and is {value}'
            for name, value in _circumstances(runner).items()
            if self._resumed.get(name, value) != value
        ]
        if not changes:
            return
        text = 'the run goes on with other batches and random numbers than it would have had'
        if not is_by_iter and 'epoch_length' in changes[-1]:
            text += ', and its learning rate, where it is scheduled by iteration, ends elsewhere'
        print_log(f'{", ".join(changes)}: {text}', 'current', logging.WARNING)


def _circumstances(runner: Runner) -> dict[str, int]:
    """What batches depend on, beside the seed, which a resumed run takes over."""
    loader: Any = runner.train_dataloader
    return dict(
        world_size=get_world_size(),
        batch_size=loader.batch_sampler.batch_size,
        epoch_length=len(loader),
    )


def _common_seed(runner: Runner) -> int:
    """The seed of all processes; the rank comes in later, where it belongs."""
    return int(runner.seed) - (get_rank() if uses_rank_seeds(runner) else 0)


def _warn_of_order(runner: Runner) -> None:
    """DDP rebuilds its buckets after the first iteration, of a resumed run too."""
    model: Any = runner.model
    if not runner.iter or get_world_size() < 3 or not isinstance(model, DistributedDataParallel):
        return
    if not model.find_unused_parameters:
        print_log(
            f'{get_world_size()} processes sum the first gradients of a resumed run in another '
            'order: it goes on up to rounding; exactly with find_unused_parameters=True from the '
            'start',
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
    """An index of a data set that carries where in the data its sample stands."""

    where: tuple[int, ...]

    def __new__(cls, index: int, where: tuple[int, ...]) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.where = where
        return self

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.where)


class SeededSampler(Sampler):
    """Another sampler's indices, each with its seed; the first may be skipped, once."""

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
    """A loop's iterator whose first batches are not asked for in earnest."""

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
        """The sampler has done it."""


def _seed_loader(loader: Any, seed: int) -> SeededSampler:
    batches = loader.batch_sampler
    if not hasattr(batches, 'sampler') or not hasattr(batches, 'batch_size'):
        raise ValueError(
            'ExactResumeHook needs a batch sampler around a sampler, as DefaultSampler and '
            f'InfiniteSampler get; the training data is sampled by {type(batches).__name__}'
        )
    if hasattr(batches.sampler, 'seed'):
        batches.sampler.seed = seed  # a resumed seed comes after the loader is built
    restart_sampler(batches.sampler)
    batches.sampler = SeededSampler(batches.sampler, seed)
    kind: Any = type(loader.dataset)
    loader.dataset.__class__ = _seeded(kind)
    # Seeds of workers are drawn from it, which else would shift torch's own numbers.
    loader.generator = torch.Generator().manual_seed(_mix(seed, _LOADER) % 2**63)
    return batches.sampler


@functools.cache
def _seeded(base: Any) -> Any:
    """The data set's class, which seeds before it makes a sample."""

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
    """One 64-bit seed of several numbers."""
    return int(np.random.SeedSequence([n % 2**64 for n in numbers]).generate_state(1, np.uint64)[0])


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: without an initialised GPU it notes a stack trace every time.
    torch.default_generator.manual_seed(seed % 2**63)
    if torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork():
        torch.cuda.manual_seed_all(seed % 2**63)
