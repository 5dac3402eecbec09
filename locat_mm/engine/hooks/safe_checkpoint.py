"""Checkpoints that survive a kill, a full disk or a preemption."""

import atexit
import multiprocessing
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...checkpoint.writing import AtomicBackend
from ...mmengine_internals import gradients_per_step, validation_is_due
from ...registry import HOOKS, register

__all__ = ['SafeCheckpointHook']

#: Exit code of a process that a SIGTERM ended.
PREEMPTED = 128 + signal.SIGTERM
#: Name of the checkpoint that it saved.
_PREEMPTED_NAME = re.compile(r'epoch_\d+_iter_\d+\.pth')


class _RemovingLater(AtomicBackend):
    """Collects the files to remove, and removes none."""

    def __init__(self) -> None:
        super().__init__()
        self.outdated: list[str] = []

    def remove(self, filepath: str | Path) -> None:
        self.outdated.append(str(filepath))


@register(HOOKS)
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that always keeps at least one whole checkpoint on disk.

    A file is written under a temporary name, synced and renamed; an old file is removed only after
    the new one is complete. On SIGTERM, which Slurm sends before it preempts a job, training saves
    after the current iteration and exits with 143; ``--resume`` continues from there, also within
    an epoch (exactly, with :class:`ExactResumeHook`). A SIGTERM during validation takes effect
    after it. With several processes any of them may get the signal: one saves and all exit. The
    next regular checkpoint replaces the one saved on SIGTERM, unless all are kept.

    A run that is resumed from an iteration where validation is due validates first, because the
    kill may have interrupted that validation.

    Remote files (``out_dir`` with a scheme, or ``backend_args``) are written by mmengine's
    backend for them.

    Args:
        *args, **kwargs: as for ``CheckpointHook``.
        save_on_sigterm: False leaves SIGTERM unhandled.
        sigterm_interval: with several processes, iterations between two checks whether one of
            them got the signal.

    Raises:
        ValueError: if ``sigterm_interval`` is below 1.
    """

    def __init__(
        self, *args, save_on_sigterm: bool = True, sigterm_interval: int = 10, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        if sigterm_interval < 1:
            raise ValueError(f'sigterm_interval must be positive, got {sigterm_interval}')
        self.save_on_sigterm = save_on_sigterm
        self.sigterm_interval = sigterm_interval
        self.file_backend: Any = None  # set in before_train
        self._terminated = False
        self._position: dict[str, int] = {}  # of the checkpoint that is being saved
        self._handler_before: Any = None

    def before_train(self, runner: Runner) -> None:
        """Clean the folder up, and handle SIGTERM from now on."""
        super().before_train(runner)
        # The base class loses it on resuming, and would save no best score before the next save.
        self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
        if type(self.file_backend) is LocalBackend:
            self.file_backend = AtomicBackend()
            self.backend_args = dict(backend='locat_mm_atomic')
            if is_main_process():
                for leftover in Path(self.out_dir).glob('.*.tmp'):  # from a kill while saving
                    leftover.unlink(missing_ok=True)
                # A kill may have come after the save and before the removal.
                self._remove(runner.message_hub.runtime_info.get('outdated_ckpt_id'))
        # Python allows signal handlers only in the main thread.
        if self.save_on_sigterm and threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGTERM, self._on_sigterm)
            for loop in (runner.train_loop, runner.val_loop):
                if loop is not None:
                    loop.dataloader.worker_init_fn = _IgnoreFirstSigterm(
                        loop.dataloader.worker_init_fn
                    )
            atexit.register(_end_workers)
        if runner.iter and runner.val_loop is not None and validation_is_due(runner.train_loop):
            runner.logger.info('a validation is due at this iteration')
            runner.val_loop.run()

    def after_train(self, runner: Runner) -> None:
        super().after_train(runner)
        if self._handler_before is not None:
            signal.signal(signal.SIGTERM, self._handler_before)
            self._handler_before = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save at the interval; after a SIGTERM save and exit.

        Raises:
            SystemExit: 143, after a SIGTERM.
        """
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self._must_stop(runner):
            name = f'epoch_{runner.epoch}_iter_{runner.iter + 1}.pth'
            self._save(runner, name, dict(epoch=runner.epoch, iter=runner.iter + 1))
            barrier()  # a launcher may kill all processes soon after the first exits
            runner.logger.warning(
                f'SIGTERM: saved {name} and stopped; the same command with --resume continues'
            )
            raise SystemExit(PREEMPTED)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record the position of the run, which FlexibleRunner replaces by the end of the epoch."""
        checkpoint['meta'].update(self._position)

    def _on_sigterm(self, number: int, frame: Any) -> None:
        self._terminated = True

    def _must_stop(self, runner: Runner) -> bool:
        step = runner.iter + 1
        if _gradients_wait(runner, step):
            return False
        if get_world_size() == 1:
            return self._terminated
        if not self.save_on_sigterm:
            return False
        # Counted in optimizer steps: with 16 gradients per step, 10 iterations would become 80.
        gradients = gradients_per_step(runner.optim_wrapper)
        if step % (gradients * max(1, self.sigterm_interval // gradients)):
            return False
        terminated = torch.tensor(float(self._terminated))
        all_reduce(terminated, 'max')
        return bool(terminated)

    def _save(self, runner: Runner, name: str, meta: dict) -> None:
        if _gradients_wait(runner, meta['iter']):
            runner.logger.warning(
                f'{name} lacks the gradients that wait for more batches (accumulative_counts): a '
                'run that is resumed from it takes a smaller step. Save at a multiple of it.'
            )
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._position = {key: meta[key] for key in ('epoch', 'iter')}
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
        finally:
            self._position = {}
        if is_main_process():
            AtomicBackend().put_text(self.last_ckpt, Path(runner.work_dir) / 'last_checkpoint')

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Like the base class, but remove the old file last."""
        outdated = None
        kept = self.keep_ckpt_ids if self.max_keep_ckpts > 0 else None
        if kept is not None and not (kept and kept[-1] == step):
            if len(kept) == self.max_keep_ckpts:
                outdated = kept.popleft()
            kept.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(kept))
            runner.message_hub.update_info('outdated_ckpt_id', outdated)
        self._save(runner, self.filename_tmpl.format(step), meta)
        if is_main_process():
            self._remove(outdated)
            if self.max_keep_ckpts > 0 and isinstance(self.file_backend, AtomicBackend):
                for path in Path(self.out_dir).iterdir():
                    if _PREEMPTED_NAME.fullmatch(path.name):
                        path.unlink()

    def _remove(self, step: int | None) -> None:
        """Remove the checkpoint of a step, if there is one."""
        if step is None:
            return
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # a sharded one
            self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._removing_later():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_later(self) -> Iterator[None]:
        if not isinstance(self.file_backend, AtomicBackend):
            yield
            return
        backend, self.file_backend = self.file_backend, _RemovingLater()
        outdated = self.file_backend.outdated
        try:
            yield
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None)}
        best |= {*getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in outdated:  # reached only without an error
            if path not in best:  # saved again under the same name
                backend.remove(path)


def _gradients_wait(runner: Runner, step: int) -> bool:
    """Whether gradients of this step are still being summed; checkpoints do not contain them."""
    return step % gradients_per_step(runner.optim_wrapper) != 0 and step < runner.max_iters


class _IgnoreFirstSigterm:
    """Initialises workers that ignore the first SIGTERM.

    A whole job gets the signal, and training needs the workers until it has saved. A second
    SIGTERM, such as PyTorch's own at shutdown, ends them.
    """

    def __init__(self, init_fn: Any) -> None:
        self.init_fn = init_fn

    def __call__(self, worker_id: int) -> None:
        if self.init_fn is not None:
            self.init_fn(worker_id)
        signal.signal(signal.SIGTERM, _ignore_once)


def _ignore_once(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_workers() -> None:
    """Kill waiting workers when Python exits, which would send them only their first SIGTERM."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report a crash
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
