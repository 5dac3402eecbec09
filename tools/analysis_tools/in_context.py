"""Evaluate a frozen backbone by in-context segmentation (Hummingbird), for configs/in_context.

CHECKPOINT is the checkpoint of a classifier, of a backbone, or of a self-supervised model, whose
backbone is named by --prefix. It may be anything that init_cfg takes. Without CHECKPOINT the
weights come from the config's init_cfg.
"""

import argparse

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import dump

from locat_mm.cli.arguments import (
    add_cfg_options,
    add_launcher,
    add_trust_checkpoint,
    set_local_rank,
)
from locat_mm.cli.feature_tests import set_in_context_weights
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.engine import build_runner
from locat_mm.helpers import innermost


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of an InContextSegmentor')
    parser.add_argument(
        'checkpoint', nargs='?', help='weights of the backbone; by default those of init_cfg'
    )
    parser.add_argument('--prefix', help="prefix of the backbone's keys in CHECKPOINT")
    parser.add_argument('--max-patches', type=int, help='upper limit of patches in the bank')
    parser.add_argument('--work-dir', help='folder of logs and metrics')
    parser.add_argument('--out', metavar='FILE.json', help='also write the metrics to this file')
    parser.add_argument('--show-dir', help='folder for images of the predictions')
    add_trust_checkpoint(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    add_cfg_options(parser)
    add_launcher(parser)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith('.json'):
        parser.error(f'--out writes JSON, so its name must end in .json, got {args.out}')
    if args.prefix and not args.checkpoint:
        parser.error('--prefix needs CHECKPOINT')
    set_local_rank(args)
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line's settings into the config."""
    cfg.launcher = args.launcher
    set_in_context_weights(cfg, args.checkpoint, args.prefix)
    if args.max_patches is not None:
        cfg.model.max_patches = args.max_patches
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show_dir:
        cfg.default_hooks.visualization.update(draw=True, interval=1)
        cfg.visualizer.save_dir = args.show_dir


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    merge_args(cfg, args)
    runner = build_runner(cfg, trust_checkpoint=args.trust_checkpoint)
    # mmengine initialises weights only before training.
    innermost(runner.model).init_weights()  # type: ignore[operator]
    metrics = runner.test()
    if args.out and is_main_process():
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
