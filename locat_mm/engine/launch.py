"""From a config to a Runner; mistakes are found before any work is done."""

import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import Runner
from torch import nn

from ..checkpoint import find_resumable, pretrained_of, trust_checkpoints, watch_pretrained
from ..config import walk
from ..datasets import check_channels, check_sources, check_zero_label, has_backend, leaves
from ..helpers import doing, innermost
from .hooks.checkpoint_fit import CheckpointFitHook
from .runner import annotate_runner

__all__ = ['build_runner']

#: Starting more workers would take too long to be intended.
_MAX_WORKERS = 1024


def build_runner(
    cfg: Config, checkpoint: str | None = None, trust_checkpoint: bool = False
) -> Runner:
    """Build the Runner of a config, for training or, with ``checkpoint``, for testing.

    From then on this process executes no pickle: see
    :func:`locat_mm.checkpoint.trust_checkpoints`.

    Args:
        cfg: the complete config, including ``cfg.launcher`` and ``cfg.resume``.
        checkpoint: the weights to test, anything that
            :func:`locat_mm.checkpoint.read_state_dict` reads; every key must fit the model.
        trust_checkpoint: execute the code in a file that cannot be read otherwise.

    Raises:
        FileNotFoundError: if a data set or a checkpoint is missing.
        RuntimeError: if mixed precision is requested without an accelerator.
        ValueError: if the checkpoint to test or to resume from belongs to another model or is
            incomplete; if nothing of the checkpoint to start from (``load_from``) fits the model
            or its backbone (other differences are logged); if a whole model's ``init_cfg`` of
            type ``Pretrained`` does not fit; if a file cannot be read without executing it; if
            numbers of channels differ (:func:`locat_mm.datasets.check_channels`).
    """
    trust_checkpoints(trust_checkpoint)
    is_test = checkpoint is not None
    with doing('checking the config'):
        trains = not is_test and bool(cfg.get('train_dataloader'))
        for loader in ('train_dataloader', 'val_dataloader') if trains else ('test_dataloader',):
            _check_data(cfg, loader)
        check_channels(cfg)
        _check_numbers(cfg)
        _check_amp(cfg, is_test)
        _check_flexible(cfg)
        if cfg.get('launcher', 'none') != 'none' and get_device() == 'cpu':
            _use_gloo(cfg)
        _find_resumed(cfg)
        is_filled = not is_test and _start_from_init_cfg(cfg)
        kind = RUNNERS.get(cfg.get('runner_type', 'Runner'))
        if kind is None:
            raise ValueError(f'unknown runner_type {cfg.runner_type!r}')
    with doing('building the runner'):
        runner = annotate_runner(kind).from_cfg(cfg)
        model = _whole_model(cfg, runner)
    hook = CheckpointFitHook(model, strict=is_filled)
    runner.register_hook(hook)
    if isinstance(runner.model, nn.Module):
        watch_pretrained(model)
    source = checkpoint or cfg.get('load_from')
    if source is not None:
        is_resumed = not is_test and bool(cfg.get('resume'))
        hook.check_early(
            source,
            is_start=not is_test and not is_resumed,
            is_resumed=is_resumed,
            has_schedule=bool(cfg.get('param_scheduler')),
        )
    return runner


def _whole_model(cfg: Config, runner: Runner) -> nn.Module:
    """The runner's model; names and shapes only if the runner builds and shards it later."""
    if isinstance(runner.model, nn.Module):
        return innermost(runner.model)
    with torch.random.fork_rng(devices=[]):
        return innermost(MODELS.build(cfg.model)).to('meta')


def _start_from_init_cfg(cfg: Config) -> bool:
    """Replace a whole model's ``Pretrained`` by ``load_from``, which is checked more strictly.

    Returns:
        whether the run starts from it.
    """
    init = pretrained_of(cfg.model.get('init_cfg'))
    if init is None:
        return False
    if cfg.get('resume'):  # all weights come from the checkpoint
        cfg.model.init_cfg = None
        return False
    if cfg.get('load_from'):
        raise ValueError(
            f'model.init_cfg and load_from both name a start, {init.checkpoint} and '
            f'{cfg.load_from}: leave one out'
        )
    if init.prefix:
        raise ValueError(
            f'model.init_cfg fills the whole model, so it takes no prefix ({init.prefix!r}): for '
            'the backbone alone, move it to model.backbone.init_cfg'
        )
    cfg.model.init_cfg = None
    cfg.load_from, cfg.resume = init.checkpoint, False
    return True


def _find_resumed(cfg: Config) -> None:
    """Replace "resume from the latest checkpoint" by the latest one that is not damaged."""
    if not cfg.get('resume') or cfg.get('load_from'):
        return
    cfg.load_from = find_resumable(cfg.work_dir)
    if cfg.load_from is None:
        print_log(f'{cfg.work_dir} has nothing to resume: the run starts anew', 'current')
        cfg.resume = False


def _check_numbers(cfg: Config) -> None:
    """Find numbers with which a run would end at once without a message, or never start."""
    for name in ('max_epochs', 'max_iters'):
        length = (cfg.get('train_cfg') or {}).get(name, 1)
        if not isinstance(length, int) or length < 1:
            raise ValueError(f'train_cfg.{name} must be a positive number, got {length!r}')
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        workers = (cfg.get(name) or {}).get('num_workers', 0)
        if not isinstance(workers, int) or not 0 <= workers <= _MAX_WORKERS:
            raise ValueError(
                f'{name}.num_workers must be a number from 0 to {_MAX_WORKERS}, got {workers!r}'
            )


def _check_amp(cfg: Config, is_test: bool) -> None:
    if is_test:
        wanted = (cfg.get('test_cfg') or {}).get('fp16', False)
    else:
        wanted = (cfg.get('optim_wrapper') or {}).get('type') == 'AmpOptimWrapper'
    if wanted and get_device() == 'cpu':
        raise RuntimeError(
            'automatic mixed precision needs an accelerator, and this machine has none: leave out '
            '--amp or, where the config sets it, add --cfg-options optim_wrapper.type=OptimWrapper'
        )


def _check_flexible(cfg: Config) -> None:
    """mmengine's FlexibleRunner reads these keys in its strategy and ignores them elsewhere."""
    if cfg.get('runner_type') != 'FlexibleRunner':
        return
    moved = ('sync_bn', 'model_wrapper_cfg', 'find_unused_parameters')
    ignored = [key for key in moved if cfg.get(key)]
    if ignored:
        raise ValueError(
            f'FlexibleRunner ignores {", ".join(ignored)} at top level: see the arguments of '
            'strategy (strategy.sync_bn)'
        )


def _check_data(cfg: Config, loader: str) -> None:
    given = (cfg.get(loader) or {}).get('dataset')
    for dataset in leaves(given) if given else ():
        root = dataset.get('data_root')
        is_remote = '://' in (root or '') or has_backend(dataset, dataset.get('pipeline'))
        if root and not is_remote and not Path(root).exists():
            source = cfg.get('dataset_source', 'No source is named in the config.')
            raise FileNotFoundError(
                f'{loader}: {dataset["type"]} belongs in {root}, and there is nothing there '
                f'(looked from {Path.cwd()}). {source}'
            )
        check_sources(loader, dataset, cfg.get('default_scope', 'mmengine'))
    if given:
        check_zero_label(loader, given, cfg.get('default_scope', 'mmengine'))


def _use_gloo(cfg: Config) -> None:
    """Start the process group here, because mmengine's launchers always select a CUDA device.

    mmengine uses a process group that exists already.
    """
    if cfg.launcher != 'pytorch':
        raise RuntimeError(
            f'launcher={cfg.launcher!r} needs accelerators, and this machine has none: use '
            "launcher='pytorch' (tools/dist_train.sh)"
        )
    synced = [key for key, part in walk(cfg.model, 'model') if part.get('type') == 'SyncBN']
    if synced:
        raise RuntimeError(
            'SyncBN needs accelerators, and this machine has none. To normalise per process, add '
            f'--cfg-options {" ".join(f"{key}.type=BN" for key in synced)}'
        )
    torch.distributed.init_process_group('gloo')
    if os.environ['RANK'] == '0':
        print(f'No accelerator: {os.environ["WORLD_SIZE"]} processes on CPU over gloo.')
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
