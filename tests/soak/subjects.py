"""The small models whose configs and checkpoints are mutated, and what their runs write down."""

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

__all__ = ['SMALL', 'STOCK', 'SUBJECTS', 'MutationSnapshot']

SMALL = {
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.dataset.indices': 4,
    'test_dataloader.batch_size': 2,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'test_dataloader.dataset.indices': 2,
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.interval': 1,
    'custom_hooks': [dict(type='MutationSnapshot')],
}
STOCK = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=64, num_layers=2, num_heads=2, feedforward_channels=64),
    img_size=48,
    patch_size=8,
)
EMA = dict(type='EMAHook', momentum=0.1)
#: demo config, its overrides and the ways in which its checkpoints are tried
SUBJECTS: dict[str, tuple[str, dict, tuple[str, ...]]] = {
    'classifier': (
        'locatvit_classify',
        {'train_cfg.max_epochs': 2},
        ('load_from', 'resume', 'test', 'init_cfg'),
    ),
    'segmentor': (
        'locatvit_segment',
        {'train_cfg.max_iters': 2, 'param_scheduler.0.total_steps': 2},
        ('load_from', 'resume', 'test', 'init_cfg'),
    ),
    # A backbone of mmpretrain's, with averaged weights.
    'stock': (
        'vit_classify',
        {
            'train_cfg.max_epochs': 2,
            'train_dataloader.dataset.indices': 8,
            'custom_hooks': [dict(type='MutationSnapshot'), EMA],
        },
        ('load_from', 'resume', 'test', 'init_cfg'),
    ),
}


@HOOKS.register_module(force=True)
class MutationSnapshot(Hook):
    """Writes down what was loaded, before the first step, and that a step has run."""

    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        self._write(
            runner,
            optimizer=runner.optim_wrapper.state_dict(),
            schedule=[scheduler.last_step for scheduler in runner.param_schedulers or ()],
            iter=runner.iter,
        )

    def before_test_epoch(self, runner: Any) -> None:
        self._write(runner)

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        (Path(runner.work_dir) / 'stepped').touch()

    def after_test(self, runner: Any) -> None:
        (Path(runner.work_dir) / 'stepped').touch()

    @staticmethod
    def _write(runner: Any, **more: Any) -> None:
        content = dict(model=runner.model.state_dict(), **more)
        torch.save(content, Path(runner.work_dir) / 'loaded.pt')
