"""Test a checkpoint with a config of mmpretrain (classification) or mmseg (segmentation)."""

import argparse
from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.fileio import dump

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
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder of logs and metrics')
    parser.add_argument(
        '--out',
        help='with --out-item, the file to write (.json, .pkl); without it, a folder of predicted '
        'maps (segmentation) or a file of predictions (classification)',
    )
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='content of the file --out',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='equal bits in every run; an operation without a deterministic algorithm is an error',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for images of the predictions')
    parser.add_argument(
        '--interval', type=int, default=1, help='draw one image out of this many (classification)'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds per window')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='do not pin the memory of data loaders'
    )
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    add_launcher(parser)
    args = parser.parse_args(argv)
    if args.out_item and not args.out:
        parser.error('--out-item needs --out')
    set_local_rank(args)
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    is_classification = cfg.get('default_scope') == 'mmpretrain'
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.deterministic:
        make_deterministic(cfg)
    if args.show or args.show_dir:
        set_visualization(cfg, args, is_classification)
    if args.tta:
        set_tta(cfg, is_classification)
    if not is_classification and args.out and args.out_item is None:
        cfg.test_evaluator.update(output_dir=args.out, keep_results=True)
    if args.no_pin_memory:
        cfg.test_dataloader.pin_memory = False


def set_visualization(cfg: Config, args: argparse.Namespace, is_classification: bool) -> None:
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need default_hooks.visualization in the config')
    if not is_classification and args.interval != 1:
        raise ValueError("mmseg's hook draws every test image: --interval has no effect")
    if not is_classification and args.show and args.show_dir:
        raise ValueError("mmseg's hook either shows or saves: give --show or --show-dir")
    hook.update(show=args.show, wait_time=args.wait_time, interval=args.interval)
    if is_classification and args.tta:
        raise ValueError('mmpretrain cannot draw augmented images: use --show-dir without --tta')
    # The hooks of the two packages use different names for the same settings.
    if is_classification:
        hook.update(enable=True, out_dir=args.show_dir)
    else:
        hook.draw = True
        if args.show_dir:
            cfg.visualizer.save_dir = args.show_dir


def set_tta(cfg: Config, is_classification: bool) -> None:
    if is_classification and 'tta_model' not in cfg:
        cfg.tta_model = dict(type='mmpretrain.AverageClsScoreTTA')
    if is_classification and 'tta_pipeline' not in cfg:
        *pipeline, pack = deepcopy(cfg.test_dataloader.dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = [*pipeline, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError('--tta needs tta_model and tta_pipeline in the config')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    merge_args(cfg, args)
    runner = build_runner(cfg, args.checkpoint, args.trust_checkpoint)
    writes_maps = cfg.default_scope != 'mmpretrain' and args.out_item is None
    if args.out and args.out_item != 'metrics' and not writes_maps:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out_item == 'metrics' and is_main_process():
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
