"""Private parts of mmengine that this package uses, each with the reason.

mmengine offers no public way to do these. When a new release of mmengine breaks something, look
here first. Overrides of private methods are in the classes that inherit from mmengine's.
"""

from typing import Any, Literal

from mmengine.dataset import InfiniteSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner

__all__ = [
    'built_loop',
    'gradients_per_step',
    'is_resuming',
    'restart_iterator',
    'restart_sampler',
    'set_iteration',
    'uses_rank_seeds',
    'validation_is_due',
]


def built_loop(runner: Runner, name: Literal['train', 'val', 'test']) -> BaseLoop | None:
    """A runner's loop if it is built. The public property would build it."""
    loop = getattr(runner, f'_{name}_loop')
    return loop if isinstance(loop, BaseLoop) else None


def is_resuming(runner: Runner) -> bool:
    """Whether a run continues from a checkpoint: the runner keeps it only privately."""
    return bool(runner._resume)


def uses_rank_seeds(runner: Runner) -> bool:
    """``randomness.diff_rank_seed``: ``runner.seed`` then already contains the rank."""
    return bool(runner._randomness_cfg.get('diff_rank_seed', False))


def gradients_per_step(optim_wrapper: OptimWrapper) -> int:
    """Batches whose gradients one optimizer step sums (``accumulative_counts``)."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def set_iteration(loop: EpochBasedTrainLoop, iteration: int) -> None:
    """Correct the iteration of a resumed run; ``iter`` has no setter."""
    loop._iter = iteration


def validation_is_due(loop: BaseLoop) -> bool:
    """Whether a training loop validates at exactly the iteration where it stands.

    The interval can change during training (``dynamic_intervals``), and only a private method
    updates it.
    """
    if not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
        return False
    loop._decide_current_val_interval()
    if isinstance(loop, IterBasedTrainLoop):
        step, last = loop.iter, loop.max_iters
    elif loop.iter == loop.epoch * len(loop.dataloader):
        step, last = loop.epoch, loop.max_epochs
    else:  # in the middle of an epoch
        return False
    return step >= loop.val_begin and (step % loop.val_interval == 0 or step == last)


def restart_sampler(sampler: Any) -> None:
    """Let an ``InfiniteSampler`` start again: its generator lasts for the whole run."""
    if isinstance(sampler, InfiniteSampler):
        sampler.indices = sampler._indices_of_rank()


def restart_iterator(loop: Any, epoch: int = 0) -> Any:
    """A new iterator for a loop by iterations.

    Upstream's iterator starts the workers when the loop is built, before hooks can change the
    data set or the sampler.
    """
    loop.dataloader._iterator = None
    iterator = type(loop.dataloader_iterator)(loop.dataloader)
    iterator._epoch = epoch
    return iterator
