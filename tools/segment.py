"""A few labelled pictures -> masks of a folder, without training.

Every patch of a picture gets the labels of its nearest patches in the examples, by the features of
a pretrained backbone (InContextSegmentor). A mask has the path of its image below its folder, ends
in .png, and holds the number of the class in every pixel; 255 stands for no label.

In OUT: masks/NAME.png, overlays/NAME.jpg, legend.png and, with --masks, scores.json. Exit status:
0 if all pictures were done, 3 if some could not be read (one line each; the others are done), 1
after an error, 2 for wrong arguments.

  python tools/segment.py --examples few/images few/masks --images photos \\
    --backbone timm:vit_small_patch14_dinov2.lvd142m --out result
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from locat_mm.analysis.overlay import make_palette
from locat_mm.checkpoint import trust_checkpoints, write_beside
from locat_mm.cli.arguments import add_cfg_options, add_trust_checkpoint
from locat_mm.cli.examples import check_mask, find_masks, read_examples, read_mask
from locat_mm.cli.in_context import ExampleSegmentor, Scores, config_backbone, timm_backbone
from locat_mm.cli.pictures import Picture, find_pictures, for_each_picture
from locat_mm.cli.reporting import reports_errors
from locat_mm.cli.results import ResultWriter
from locat_mm.config import load_config
from locat_mm.layers.gaussian_augment import STARTS

#: Exit status if some pictures could not be done.
SOME_FAILED = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--examples', nargs=2, required=True, metavar=('IMAGES', 'MASKS'), help='two folders'
    )
    parser.add_argument(
        '--images', nargs='+', required=True, metavar='IMAGE|FOLDER|GLOB', help='to be segmented'
    )
    parser.add_argument('--out', required=True, help='folder for the results')
    parser.add_argument(
        '--backbone',
        metavar='timm:NAME',
        help='a transformer of timm with its pretrained weights, from the Hugging Face hub or its '
        'cache; timm:vit_small_patch14_dinov2.lvd142m is good and small',
    )
    parser.add_argument('--weights', metavar='FILE', help="instead of timm's pretrained weights")
    parser.add_argument(
        '--attach',
        choices=STARTS,
        help='attach GAug to the backbone of timm, with this start where WEIGHTS have none',
    )
    parser.add_argument('--config', help='instead: use the backbone of this config')
    parser.add_argument('--checkpoint', help='of the model of CONFIG, or of its backbone')
    parser.add_argument('--prefix', help="what the backbone's names in CHECKPOINT start with")
    parser.add_argument(
        '--classes', metavar='FILE', help='a class name per line, in the order of the mask values'
    )
    parser.add_argument('--mask-suffix', help='of masks, such as _mask.png for photo_mask.png')
    parser.add_argument('--ignore-index', type=int, default=255, help='mask value without label')
    parser.add_argument('--masks', metavar='FOLDER', help='true masks of IMAGES, for scores')
    parser.add_argument(
        '--size', type=int, help='side that pictures are resized to; default: of the pretraining'
    )
    parser.add_argument('--neighbours', type=int, default=30, help='patches that a patch looks up')
    parser.add_argument('--temperature', type=float, default=0.02, help='of their weights')
    parser.add_argument('--device', help='such as cpu or cuda:1; default: a GPU if there is one')
    parser.add_argument(
        '--opacity', type=float, default=0.5, help='of the colours in overlays, 0 to 1'
    )
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if bool(args.backbone) == bool(args.config):
        parser.error(
            'give --backbone timm:NAME (such as timm:vit_small_patch14_dinov2.lvd142m) or '
            '--config with --checkpoint'
        )
    if args.backbone and not args.backbone.startswith('timm:'):
        parser.error(f'--backbone is timm:NAME, got {args.backbone}')
    if bool(args.config) != bool(args.checkpoint):
        parser.error('--config and --checkpoint belong together')
    for option, owner in (
        *(('weights', 'backbone'), ('attach', 'backbone')),
        *(('prefix', 'config'), ('cfg_options', 'config')),
    ):
        if getattr(args, option) and not getattr(args, owner):
            parser.error(f'--{option.replace("_", "-")} needs --{owner}')
    if not 0 <= args.opacity <= 1:
        parser.error(f'--opacity is from 0 to 1, got {args.opacity}')
    if args.size is not None and args.size < 1:
        parser.error(f'--size must be positive, got {args.size}')


def build_model(args: argparse.Namespace, cfg, num_classes: int) -> ExampleSegmentor:
    if args.backbone:
        name = args.backbone.removeprefix('timm:')
        found = timm_backbone(name, args.weights, args.attach, args.size)
    else:
        found = config_backbone(cfg, args.checkpoint, args.prefix, args.size)
    return ExampleSegmentor(
        *found,
        num_classes,
        num_neighbours=args.neighbours,
        temperature=args.temperature,
        ignore_index=args.ignore_index,
        device=args.device,
    )


@reports_errors
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options) if args.config else None
    trust_checkpoints(args.trust_checkpoint)
    others = [folder for folder in (args.out, args.masks) if folder]
    inputs = [Path(text).absolute() for text in args.images]
    pictures = find_pictures(args.images, [f for f in others if Path(f).absolute() not in inputs])
    if args.masks and args.mask_suffix:
        pictures = [p for p in pictures if not p.path.name.endswith(args.mask_suffix)]
    truths = find_masks(pictures, args.masks, args.mask_suffix) if args.masks else {}
    images, masks, names = read_examples(
        *args.examples, args.mask_suffix, args.classes, args.ignore_index
    )
    print(f'{len(images)} examples, {len(names)} classes: {", ".join(names)}')
    model = build_model(args, cfg, len(names))
    model.learn(images, masks)
    writer = ResultWriter(args.out, names, make_palette(names), args.opacity)
    scores = Scores(names, args.ignore_index)

    def work(picture: Picture, image: np.ndarray) -> None:
        truth = None
        if picture in truths:
            truth = read_mask(truths[picture])
            check_mask(truth, truths[picture], image.shape, len(names), args.ignore_index)
        mask = model(image)
        writer.write(picture, image, mask)
        if truth is not None:
            scores.add(mask, truth)

    failed = for_each_picture(pictures, work, 'segmentation')
    if truths and len(failed) < len(pictures):
        summary = scores.summarise()
        with write_beside(Path(args.out) / 'scores.json') as beside:
            beside.write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding='utf-8')
        print(f'mIoU {summary["mIoU"]} % over {summary["images"]} images with masks')
    print(f'{len(pictures) - len(failed)} of {len(pictures)} pictures done: {args.out}')
    if failed:
        print(f'{len(failed)} failed: see the lines FAILED above', file=sys.stderr)
    return SOME_FAILED if failed else 0


if __name__ == '__main__':
    sys.exit(main())
