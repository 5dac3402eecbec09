"""Mean and deviation of each channel over the training images of a config.

Images are read through the config's loading transforms (and CTWindow) alone, without resizing or
augmentation. Pixels without data are left out. The printed lines belong into data_preprocessor.
"""

import argparse
import json
import sys
from pathlib import Path

from mmengine.registry import DATASETS, init_default_scope

from locat_mm.checkpoint import write_beside
from locat_mm.cli.arguments import add_cfg_options
from locat_mm.cli.channels import as_lines, reverses
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.datasets import check_sources, leaves, measure_channels


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of mmseg or mmpretrain')
    parser.add_argument('--num-workers', type=int, default=0, help='processes that read')
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for the numbers')
    add_cfg_options(parser)
    return parser.parse_args(argv)


@reports_errors
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    scope = cfg.get('default_scope', 'mmengine')
    init_default_scope(scope)
    dataset_cfg = (cfg.get('train_dataloader') or {}).get('dataset')
    if not dataset_cfg:
        raise ValueError(f'{args.config} has no train_dataloader.dataset')
    for leaf in leaves(dataset_cfg):
        if 'data_prefix' in leaf:
            check_sources('train_dataloader', leaf, scope)
    found = measure_channels(list(leaves(DATASETS.build(dataset_cfg))), args.num_workers)
    mean, std = found.mean.tolist(), found.std.tolist()
    if reverses(cfg, len(mean)):
        mean, std = mean[::-1], std[::-1]
    print(
        f'{found.images} images, {found.pixels} pixels, {found.nodata} pixels without data left out'
    )
    print(as_lines(cfg, mean, std))
    if args.out:
        content = dict(
            mean=mean, std=std, images=found.images, pixels=found.pixels, nodata=found.nodata
        )
        with write_beside(args.out) as beside:
            beside.write_text(json.dumps(content, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
