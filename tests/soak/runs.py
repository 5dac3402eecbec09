"""The small training runs that kills.py starts: which loop, how many processes, and where."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from locat_mm.config import load_config
from tests.support import demo_config

__all__ = ['Plan']

FLIP = dict(type='RandomFlip', prob=0.5)
#: 12 iterations each, saved after every fourth and third, validated then and in between.
SETTINGS: dict[str, dict] = {
    'epoch': {
        'train_cfg.max_epochs': 3,
        'train_cfg.val_interval': 1,
        'val_dataloader.batch_size': 20,
        'model.backbone.drop_path_rate': 0.3,
        'model.train_cfg': dict(augments=dict(type='Mixup', alpha=0.8)),
        'default_hooks.checkpoint.save_best': 'auto',
    },
    'iteration': {
        'train_cfg.max_iters': 12,
        'train_cfg.val_interval': 4,
        'model.backbone.init_cfg': None,
        'model.backbone.frozen': False,
        'model.backbone.drop_path_rate': 0.3,
        'param_scheduler.0.total_steps': 12,
        'default_hooks.checkpoint.interval': 3,
    },
}
CONFIGS = {'epoch': 'locatvit_classify', 'iteration': 'vit_segment'}
#: Images in a step of all processes together.
BATCH = {'epoch': 32, 'iteration': 4}


@dataclass
class Plan:
    """A run: which loop, how many processes and workers, and where."""

    loop: str
    world: int
    workers: int
    work_dir: Path

    def config(self) -> Config:
        loaders = ('train_dataloader', 'val_dataloader')
        options = {
            **SETTINGS[self.loop],
            **{f'{loader}.num_workers': self.workers for loader in loaders},
            **{f'{loader}.persistent_workers': self.workers > 0 for loader in loaders},
            'model.backbone.arch.depth': 2,
            'train_dataloader.batch_size': BATCH[self.loop] // self.world,
            'default_hooks.checkpoint.max_keep_ckpts': 2,
            'default_hooks.checkpoint.sigterm_interval': 2,
            'default_hooks.logger.interval': 1,
        }
        cfg = load_config(str(demo_config(CONFIGS[self.loop])), options, str(self.work_dir))
        pipeline = cfg.train_dataloader.dataset.pipeline
        # Before what packs; segmentation maps have been read by then.
        pipeline.insert(len(pipeline) - 1, dict(FLIP))
        # Laying out the config, which is in every checkpoint, would cost more than the training.
        object.__setattr__(cfg, '_format_python_code', False)
        # With more than two, DDP would sum in another order after a resumed run's first iteration.
        cfg.find_unused_parameters = self.world > 2
        cfg.launcher = 'pytorch' if self.world > 1 else 'none'
        return cfg
