"""Draw the attention and the Gaussians of a vision transformer, one figure per image.

For one patch the figure shows its attention and its Gaussian in several layers. For all patches it
shows the width and strength of their Gaussians, their similarity to [CLS], and the weights of PRR.
Panels that a model has no data for, such as the Gaussians of a plain ViT, are omitted.

With --html all images go into one HTML file instead, which shows the same of every patch that is
clicked, and segmentation maps. With --compare it shows two models beside each other.
"""

import argparse
from pathlib import Path

from locat_mm.analysis.figures import draw_inspection
from locat_mm.analysis.inspection import Inspector
from locat_mm.analysis.page import write_page
from locat_mm.checkpoint import trust_checkpoints
from locat_mm.cli.arguments import add_cfg_options, add_trust_checkpoint
from locat_mm.cli.class_names import read_class_names
from locat_mm.cli.pages import HEADS, look_at
from locat_mm.cli.reporting import reports_errors

OUT_DIR = Path('work_dirs/inspect')


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
    parser.add_argument('--out-dir', type=Path, help=f'folder of the figures; by default {OUT_DIR}')
    page = parser.add_argument_group('a page in place of figures')
    page.add_argument('--html', type=Path, metavar='OUT.html', help='write this file')
    page.add_argument(
        '--compare',
        nargs=2,
        metavar=('CONFIG2', 'CHECKPOINT2'),
        help='a second model, which --cfg-options do not change',
    )
    page.add_argument(
        '--names', nargs='+', help='of the model or of both; by default those of the configs'
    )
    page.add_argument(
        '--heads',
        choices=HEADS,
        help='attention of all heads, or their mean alone; by default "auto": all, except in '
        'layers of more than a million weights',
    )
    page.add_argument(
        '--classes', metavar='FILE', help='a class name per line; by default those of the data set'
    )
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    of_figures, of_page = ('patch', 'point', 'layers', 'out_dir'), ('compare', 'names', 'heads')
    for name in of_figures if args.html else (*of_page, 'classes'):
        if getattr(args, name) is not None:
            option = f'--{name.replace("_", "-")}'
            kind = 'figures, and not for --html' if args.html else 'a page: give --html OUT.html'
            parser.error(f'{option} is for {kind}')
    count = 2 if args.compare else 1
    if args.names and len(set(args.names)) != count:
        parser.error(f'--names needs {count} different names, got {" ".join(args.names)}')
    names = [Path(image).stem for image in args.images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        kind = 'have the same name' if args.html else 'would be written to the same file'
        parser.error(f'several images {kind}: {", ".join(twice)}')


def make_page(args: argparse.Namespace) -> None:
    """Write the page of one model or two."""
    models = [(args.config, args.checkpoint, args.cfg_options)]
    if args.compare:
        models.append((*args.compare, None))
    names = args.names or [Path(config).stem for config, *_ in models]
    if not args.names and len(set(names)) < len(names):
        names = [f'{name} {"AB"[i]}' for i, name in enumerate(names)]
    classes = read_class_names(args.classes) if args.classes else None
    subjects = [
        look_at(Inspector(*model), name, args.images, args.heads or 'auto', classes)
        for model, name in zip(models, names, strict=True)
    ]
    write_page(subjects, args.html)
    print(f'{args.html} ({args.html.stat().st_size / 1e6:.1f} MB): open it in a browser')


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    trust_checkpoints(args.trust_checkpoint)
    if args.html:
        make_page(args)
        return
    inspector = Inspector(args.config, args.checkpoint, args.cfg_options)
    out_dir = args.out_dir or OUT_DIR
    out_dir.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(args.images, 1):
        inspection = inspector(image)
        point = inspection.point_of(*args.patch) if args.patch else args.point
        out = out_dir / f'{Path(image).stem}.png'
        draw_inspection(inspection, out, point, args.layers)
        print(f'[{number}/{len(args.images)}] {image} -> {out}', flush=True)


if __name__ == '__main__':
    main()
