"""Runs that repeat bit for bit."""

import os

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS, register

__all__ = ['LenientEvaluationHook', 'make_deterministic']


def make_deterministic(cfg: Config) -> None:
    """Let a run use no algorithm whose result depends on the order of threads.

    mmengine's ``randomness.deterministic``, and what that leaves out: the work space of cuBLAS,
    the benchmark of cuDNN, and evaluation (:class:`LenientEvaluationHook`). In training an
    operation that has no deterministic algorithm raises torch's ``RuntimeError``, which names it.

    Args:
        cfg: of the run; changed in place.

    Raises:
        RuntimeError: if CUDA runs already, and has chosen its work space.
        ValueError: if the config fixes no seed.
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
    """Lets evaluation use what training must not: torch warns there, and does not raise.

    mmseg's mIoU counts pixels with ``torch.histc``, which torch takes for not deterministic on
    GPUs. Counts are whole numbers, and the same in every order. Training stays strict, without
    which torch's memory-efficient attention is not deterministic backward.
    """

    def before_val(self, runner: Runner) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)

    def after_val(self, runner: Runner) -> None:
        torch.use_deterministic_algorithms(True)

    def before_test(self, runner: Runner) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)

    def after_test(self, runner: Runner) -> None:
        torch.use_deterministic_algorithms(True)
