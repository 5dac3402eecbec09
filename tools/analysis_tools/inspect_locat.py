"""Draw the attention and the Gaussians of a vision transformer, one figure per image.

For one patch the figure shows its attention and its Gaussian in several layers. For all patches it
shows the width and strength of their Gaussians, their similarity to [CLS], and the weights of PRR.
Panels that a model has no data for, such as the Gaussians of a plain ViT, are omitted.
"""

import argparse
from pathlib import Path

from locat_mm.analysis.figures import draw_inspection
from locat_mm.analysis.inspection import Inspector
from locat_mm.checkpoint import trust_checkpoints
from locat_mm.cli.arguments import add_cfg_options, add_trust_checkpoint
from locat_mm.cli.reporting import reports_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of mmpretrain or mmseg')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('images', nargs='+', metavar='image', help='image files')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        '--patch',
        type=int,
        nargs=2,
        metavar=('ROW', 'COL'),
        help='the patch, counted from 0 in the grid after the patch embedding; by default the '
        'central one',
    )
    where.add_argument(
        '--point',
        type=float,
        nargs=2,
        metavar=('X', 'Y'),
        help='a pixel of the patch, in the output of the test pipeline, which the figure shows',
    )
    parser.add_argument(
        '--layers',
        type=int,
        nargs='+',
        help='attention layers, counted from 0; -1 is the last; by default six, evenly spaced from '
        'the first to the last',
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/inspect'), help='folder of the figures'
    )
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    names = [Path(image).stem for image in args.images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        parser.error(f'several images would be written to the same file: {", ".join(twice)}')
    return args


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    trust_checkpoints(args.trust_checkpoint)
    inspector = Inspector(args.config, args.checkpoint, args.cfg_options)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(args.images, 1):
        inspection = inspector(image)
        point = inspection.point_of(*args.patch) if args.patch else args.point
        out = args.out_dir / f'{Path(image).stem}.png'
        draw_inspection(inspection, out, point, args.layers)
        print(f'[{number}/{len(args.images)}] {image} -> {out}', flush=True)


if __name__ == '__main__':
    main()
