"""Train a config of mmpretrain (pretraining) or mmseg (segmentation)."""

import argparse

from mmengine.config import Config

from locat_mm.cli.arguments import (
    add_cfg_options,
    add_launcher,
    add_trust_checkpoint,
    set_local_rank,
)
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.engine import build_runner, make_deterministic


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a value, from the latest in the work directory',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='equal bits in every run; an operation without a deterministic algorithm is an error',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the actual batch size',
    )
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='do not pin the memory of data loaders'
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start new workers of data loaders in every epoch',
    )
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    add_launcher(parser)
    args = parser.parse_args(argv)
    set_local_rank(args)
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    cfg.launcher = args.launcher
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise ValueError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        if any('eta_max' in scheduler for scheduler in cfg.get('param_scheduler') or ()):
            raise ValueError(
                '--auto-scale-lr has no effect under OneCycleLR, which sets the learning rate by '
                'itself: override param_scheduler.0.eta_max and optim_wrapper.optimizer.lr'
            )
        cfg.auto_scale_lr.enable = True
    if args.deterministic:
        make_deterministic(cfg)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is None:
            continue
        if args.no_pin_memory:
            loader.pin_memory = False
        if args.no_persistent_workers:
            loader.persistent_workers = False


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    merge_args(cfg, args)
    build_runner(cfg, trust_checkpoint=args.trust_checkpoint).train()


if __name__ == '__main__':
    main()
