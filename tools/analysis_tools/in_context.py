"""In-context segmentation of a frozen backbone (Hummingbird), for configs in configs/in_context.

Without CHECKPOINT the backbone starts from the config's init_cfg. CHECKPOINT may be that of a
classifier, of a self-supervised model (say where the backbone is, with --prefix) or of a backbone,
and anything that init_cfg takes.
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
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.engine import build_runner
from locat_mm.helpers import innermost


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of an InContextSegmentor')
    parser.add_argument('checkpoint', nargs='?', help="weights for the backbone: init_cfg's")
    parser.add_argument('--prefix', help="what the backbone's names in CHECKPOINT start with")
    parser.add_argument('--max-patches', type=int, help='bound of the bank')
    parser.add_argument('--work-dir', help='where logs and metrics go')
    parser.add_argument('--out', metavar='FILE.json', help='write the metrics there, too')
    parser.add_argument('--show-dir', help='folder for painted predictions')
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
    """
    Raises:
        ValueError: if the config is of another model, or nothing says where its weights are.
    """
    if str(cfg.model.get('type')).rpartition('.')[2] != 'InContextSegmentor':
        raise ValueError(f'{cfg.filename} has no InContextSegmentor, but {cfg.model.get("type")}')
    cfg.launcher = args.launcher
    if args.checkpoint:
        init = dict(type='Pretrained', checkpoint=args.checkpoint)
        cfg.model.backbone.init_cfg = {**init, **(dict(prefix=args.prefix) if args.prefix else {})}
    if not cfg.model.backbone.get('init_cfg') and not cfg.model.backbone.get('pretrained'):
        raise ValueError(f'{cfg.filename} names no weights in model.backbone: give CHECKPOINT')
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
    # mmengine does it before training alone.
    innermost(runner.model).init_weights()  # type: ignore[operator]
    metrics = runner.test()
    if args.out and is_main_process():
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
