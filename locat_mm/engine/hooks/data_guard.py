"""Name broken data: before the run if possible, otherwise when it is read."""

import logging
import os
import time
from pathlib import Path
from typing import Any, Literal

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...datasets import GuardedPipeline, SkipLog, leaves, missing_files
from ...helpers import listed
from ...mmengine_internals import built_loop, is_resuming, restart_iterator, restart_sampler
from ...registry import HOOKS, register

__all__ = ['DataGuardHook']

_LIST = 'tools/misc/check_dataset.py CONFIG lists all that is broken'
_SKIP = '--cfg-options default_hooks.data_guard.on_error=skip trains without it'


@register(HOOKS)
class DataGuardHook(Hook):
    """Raises an error with the file's name for broken data, or trains without it.

    Empty data sets and missing files are found before the run. Images and masks that cannot be
    read, are truncated, differ in size or have a class out of range are named when they are read,
    also in workers. With ``on_error='skip'`` training takes another random sample instead (the
    same one in a resumed run, with ``ExactResumeHook``) and reports the skipped ones after each
    epoch, before each validation and at the end, in the log and in ``skipped_samples.txt`` in the
    work directory. Validation and testing always stop, because their scores would be those of
    another data set. Errors in the code always stop, too.

    In a config: ``custom_hooks=[dict(type='locat_mm.DataGuardHook')]``.

    Args:
        on_error: ``'raise'`` or ``'skip'``.
        max_skipped: after so many broken samples per training process ``'skip'`` raises, too.
        find_missing: check before the run that every listed file exists, once per machine.

    Raises:
        ValueError: if ``on_error`` is another string, or ``max_skipped`` below 1.
    """

    #: Before hooks that start workers, because workers copy the data set.
    priority = 'HIGHEST'

    def __init__(
        self,
        on_error: Literal['raise', 'skip'] = 'raise',
        max_skipped: int = 100,
        find_missing: bool = True,
    ) -> None:
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        if max_skipped < 1:
            raise ValueError(f'max_skipped must be positive, got {max_skipped}')
        self.on_error = on_error
        self.max_skipped = max_skipped
        self.find_missing = find_missing
        self._log: SkipLog | None = None
        self._reported = 0

    def before_run(self, runner: Runner) -> None:
        """Guard the data sets of all loops that have been built.

        Raises:
            ValueError: if one is empty.
            FileNotFoundError: if files are missing and ``on_error`` is not ``'skip'``.
        """
        names: tuple[Literal['train', 'val', 'test'], ...] = ('train', 'val', 'test')
        for name in names:
            loop = built_loop(runner, name)
            if loop is None:
                continue
            skips = name == 'train' and self.on_error == 'skip'
            if skips and self._log is None:
                self._log = self._start_log(runner)
            for dataset in leaves(loop.dataloader.dataset):
                self._guard(f'{name}_dataloader', dataset, self._log if skips else None)
            if name == 'train':
                _restart(loop)

    def before_val_epoch(self, runner: Runner) -> None:
        if built_loop(runner, 'train') is not None:
            self._report()

    def after_train_epoch(self, runner: Runner) -> None:
        self._report()

    def _start_log(self, runner: Runner) -> SkipLog:
        rank = get_rank()
        name = 'skipped_samples.txt' if rank == 0 else f'skipped_samples_rank{rank}.txt'
        path = Path(runner.work_dir, name)
        if not is_resuming(runner):
            path.unlink(missing_ok=True)
        return SkipLog(str(path), self.max_skipped)

    def _guard(self, loader: str, dataset: Any, log: SkipLog | None) -> None:
        kind = type(dataset).__name__
        if not len(dataset):
            raise ValueError(
                f'{loader}: {kind} has no samples (ann_file={getattr(dataset, "ann_file", "")!r}, '
                f'data_prefix={getattr(dataset, "data_prefix", "")}): check these, and the suffixes'
            )
        if not callable(getattr(dataset, 'pipeline', None)):
            print_log(f'{loader}: {kind} has no pipeline to guard', 'current', logging.WARNING)
            return
        if isinstance(dataset.pipeline, GuardedPipeline):
            return
        if self.find_missing and hasattr(dataset, 'get_data_info') and _is_first_here():
            self._look_for_files(loader, dataset, log)
        hint = f'{_LIST}; {_SKIP}' if loader == 'train_dataloader' else _LIST
        dataset.pipeline = GuardedPipeline(dataset, log, hint)

    def _look_for_files(self, loader: str, dataset: Any, log: SkipLog | None) -> None:
        start = time.perf_counter()
        missing = missing_files(dataset)
        seconds = time.perf_counter() - start
        if seconds > 10:
            print_log(f'{loader}: looking for {len(dataset)} files took {seconds:.0f} s', 'current')
        if not missing:
            return
        message = (
            f'{loader}: of {len(dataset)} samples {len(missing)} files are not there: '
            f'{listed(missing)}'
        )
        if log is None:
            raise FileNotFoundError(f'{message}. {_LIST}')
        print_log(f'{message}; they will be skipped', 'current', logging.WARNING)

    def _report(self) -> None:
        """Log samples that were skipped since the last report."""
        if self._log is None:
            return
        own = [f'{problem} [{name}]' for name, problem in self._log.read().items()]
        skipped = sorted(sum(all_gather_object(own), []))
        if len(skipped) > self._reported and get_rank() == 0:
            others = ' and its neighbours _rank*' if get_world_size() > 1 else ''
            print_log(
                f'{len(skipped)} broken samples were skipped so far: {listed(skipped)}; all are '
                f'in {self._log.path}{others}',
                'current',
                logging.WARNING,
            )
        self._reported = len(skipped)


def _restart(loop: Any) -> None:
    """Start workers again that already run, with data sets that are not guarded."""
    iterator = getattr(loop, 'dataloader_iterator', None)
    if getattr(iterator, '_iterator', None) is None:
        return
    loader = loop.dataloader
    restart_sampler(getattr(loader.batch_sampler, 'sampler', loader.sampler))
    loop.dataloader_iterator = restart_iterator(loop)


def _is_first_here() -> bool:
    """Whether this is its machine's first process; mmengine's local group may not exist."""
    return int(os.environ.get('LOCAL_RANK', 0)) == 0
