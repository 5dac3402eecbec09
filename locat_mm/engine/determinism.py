"""Runs that give the same bits each time."""

import os

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS, register

__all__ = ['LenientEvaluationHook', 'make_deterministic']


def make_deterministic(cfg: Config) -> None:
    """Make a run use only algorithms whose result does not depend on the order of threads.

    Sets mmengine's ``randomness.deterministic`` and what that omits: the workspace of cuBLAS, the
    benchmark mode of cuDNN, and evaluation (:class:`LenientEvaluationHook`). In training, an
    operation without a deterministic algorithm raises torch's ``RuntimeError``, which names it.

    Args:
        cfg: of the run; changed in place.

    Raises:
        RuntimeError: if CUDA is initialised already, with another workspace.
        ValueError: if the config sets no seed.
    """
    randomness = cfg.setdefault('randomness', {})
    if randomness.get('seed') is None:
        raise ValueError(
            'a deterministic run needs a seed, and the config has none: add '
            '--cfg-options randomness.seed=0'
        )
    if torch.cuda.is_initialized() and 'CUBLAS_WORKSPACE_CONFIG' not in os.environ:
        raise RuntimeError('CUBLAS_WORKSPACE_CONFIG=:4096:8 must be set before CUDA starts')
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    randomness.deterministic = True
    cfg.setdefault('env_cfg', {}).cudnn_benchmark = False
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [*hooks, dict(type='locat_mm.LenientEvaluationHook')]


@register(HOOKS)
class LenientEvaluationHook(Hook):
    """Lets torch only warn about nondeterministic operations in evaluation, not raise.

    mmseg's mIoU counts pixels with ``torch.histc``, which torch treats as nondeterministic on
    GPUs. The counts are integers and do not depend on the order. Training stays strict, because
    otherwise the backward pass of torch's memory-efficient attention is not deterministic.
    """

    def _before(self, runner: Runner) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)

    def _after(self, runner: Runner) -> None:
        torch.use_deterministic_algorithms(True)

    before_val = before_test = _before
    after_val = after_test = _after
