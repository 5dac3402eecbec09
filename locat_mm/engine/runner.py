"""mmengine's Runner, with errors that state what the run was doing."""

from collections import Counter
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size, is_main_process

from ..checkpoint.finding import find_resumable
from ..helpers import add_note, doing

__all__ = ['annotate_runner']

#: Methods of Runner and FlexibleRunner that build parts of a config or start a long step.
_STEPS = {
    'build_visualizer': 'building visualizer',
    'build_model': 'building model',
    'build_strategy': 'building strategy',
    'register_hooks': 'building default_hooks and custom_hooks',
    'build_train_loop': 'building the training loop and train_dataloader',
    'build_val_loop': 'building the validation loop and val_dataloader',
    'build_test_loop': 'building the test loop and test_dataloader',
    'build_optim_wrapper': 'building optim_wrapper',
    'build_param_scheduler': 'building param_scheduler',
    '_init_model_weights': 'initialising the weights',
    'load_or_resume': 'loading the checkpoint',
    'val': 'evaluating (val_dataloader)',
    'test': 'evaluating (test_dataloader)',
}


@cache
def annotate_runner(kind: Any) -> Any:
    """A subclass of a runner class whose errors carry notes, see :func:`locat_mm.helpers.doing`.

    After an error in the training loop the notes state the iteration, the last whole checkpoint
    and how to resume.
    """

    class Annotated(kind):
        def train(self) -> Any:
            try:
                return super().train()
            except Exception as error:
                if self._has_started:
                    position = f'at iteration {self.iter + 1}, epoch {self.epoch + 1}'
                    add_note(error, f'while training, {position}')
                    if is_main_process():
                        add_note(error, _how_to_resume(self.work_dir))
                raise

        def build_train_loop(self, loop: Any) -> Any:
            built = super().build_train_loop(loop)
            _check_batches(built.dataloader)
            return built

        _has_started = False

        def call_hook(self, fn_name: str, **kwargs: Any) -> None:
            # The first hook of the loop, after all parts are built and the weights are loaded.
            self._has_started |= fn_name == 'before_train'
            super().call_hook(fn_name, **kwargs)

    if hasattr(kind, 'setup_env'):
        Annotated.setup_env = _with_own_timestamp(kind.setup_env)
    for name, what in _STEPS.items():
        if hasattr(kind, name):
            setattr(Annotated, name, doing(what)(getattr(Annotated, name)))
    Annotated.__name__ = Annotated.__qualname__ = kind.__name__
    return Annotated


def _check_batches(loader: Any) -> None:
    if not len(loader) and not isinstance(loader.sampler, InfiniteSampler):
        raise ValueError(
            f'{len(loader.dataset)} training samples make no batch of {loader.batch_size} on '
            f'{get_world_size()} processes: give a smaller train_dataloader.batch_size, or '
            'drop_last=False'
        )


#: How many runs of this process began in which second.
_begun: Counter[str] = Counter()


def _with_own_timestamp(setup_env: Callable) -> Callable:
    """Number the runs of one process that begin in the same second.

    mmengine names logger, message hub, scope and visualizer after config and second. Two such runs
    would share them: the log file, the checkpoints to remove, the scope of names.
    """

    @wraps(setup_env)
    def call(self: Any, env_cfg: dict) -> None:
        setup_env(self, env_cfg)
        _begun[self._timestamp] += 1
        if (number := _begun[self._timestamp]) > 1:
            self._timestamp = f'{self._timestamp}_{number}'

    return call


def _how_to_resume(work_dir: str) -> str:
    try:
        last = find_resumable(work_dir)
    except OSError as problem:
        return f'{work_dir} cannot be searched for checkpoints: {problem}'
    if last is None:
        return f'There is no whole checkpoint in {work_dir}: the run has to start again.'
    return f'The last whole checkpoint is {last}: the same command with --resume continues from it.'
