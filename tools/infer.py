"""Predict on pictures: masks and overlays of a segmentor, or the likeliest classes of a classifier.

The config decides which (default_scope). In OUT:
  segmentation    masks/NAME.png (the values are classes, with a palette), overlays/NAME.jpg,
                  legend.png; of a GeoTIFF also masks/NAME.tif with its georeference, of a NIfTI
                  volume masks/NAME.nii.gz alone (docs/channels.md)
  classification  predictions.csv and predictions.json
NAME is the path below the folder that is given. Exit status: 0 if all pictures were done, 3 if
some could not be read (one line each; the others are done), 1 after an error, 2 for wrong
arguments.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np

from locat_mm.checkpoint import write_beside
from locat_mm.cli.arguments import add_cfg_options, add_trust_checkpoint
from locat_mm.cli.class_names import read_class_names
from locat_mm.cli.inference import Classifier, Segmentor
from locat_mm.cli.pictures import Picture, find_pictures, for_each_picture
from locat_mm.cli.rasters import segment_file, suffixes_of
from locat_mm.cli.reporting import reports_errors
from locat_mm.cli.results import ResultWriter
from locat_mm.config import load_config

#: Exit status if some pictures could not be done.
SOME_FAILED = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'images', nargs='+', metavar='IMAGE|FOLDER|GLOB', help='folders with their subfolders'
    )
    parser.add_argument('--config', required=True, help='config file of mmseg or mmpretrain')
    parser.add_argument(
        '--checkpoint', required=True, help='file, hf-hub:OWNER/NAME or timm:NAME; must fit'
    )
    parser.add_argument('--out', required=True, help='folder for the results')
    parser.add_argument(
        '--classes',
        metavar='FILE',
        help='a class name per line; by default those of the checkpoint or of the data set',
    )
    parser.add_argument('--device', help='such as cpu or cuda:1; default: a GPU if there is one')
    parser.add_argument(
        '--opacity', type=float, default=0.5, help='of the colours in overlays, 0 to 1'
    )
    parser.add_argument(
        '--window',
        type=int,
        metavar='SIZE',
        help="side of sliding windows, in pixels after the config's resizing; by default the "
        'config decides, and pictures of more than 2048×1024 such pixels are split',
    )
    parser.add_argument('--stride', type=int, help='between windows; default: 2/3 of the window')
    parser.add_argument(
        '--full-resolution', action='store_true', help="omit the config's resizing of pictures"
    )
    parser.add_argument('--top', type=int, default=5, help='classes per picture (classification)')
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if not 0 <= args.opacity <= 1:
        parser.error(f'--opacity is from 0 to 1, got {args.opacity}')
    for name in ('window', 'stride', 'top'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} must be positive, got {value}')
    if args.stride and not args.window:
        parser.error('--stride needs --window')
    return args


def segment(args: argparse.Namespace, cfg, pictures: list[Picture]) -> list[str]:
    """Write masks and overlays; return a line for each picture that failed."""
    names = read_class_names(args.classes) if args.classes else None
    model = Segmentor(
        *(cfg, args.checkpoint, names, args.device, args.window, args.stride),
        full_resolution=args.full_resolution,
        trust_checkpoint=args.trust_checkpoint,
    )
    writer = ResultWriter(args.out, model.names, model.palette, args.opacity)
    if model.reader is None:
        failed = for_each_picture(
            pictures,
            lambda picture, image: writer.write(picture, image, model(image)),
            'segmentation',
        )
    else:
        failed = for_each_picture(
            pictures,
            lambda picture, samples: segment_file(model, writer, picture, samples),
            'segmentation',
            model.reader,
        )
    if model.is_split:
        print(f'Large pictures were split into windows of {model.window} pixels (see --window).')
    return failed


def classify(args: argparse.Namespace, cfg, pictures: list[Picture]) -> list[str]:
    """Write the likeliest classes; return a line for each picture that failed."""
    if args.window or args.full_resolution:
        raise ValueError('--window and --full-resolution are for segmentation')
    names = read_class_names(args.classes) if args.classes else None
    model = Classifier(cfg, args.checkpoint, names, args.device, args.trust_checkpoint)
    results: list[dict] = []

    def work(picture: Picture, image: np.ndarray) -> None:
        scores = model(image)
        order = np.argsort(-scores, kind='stable')[: args.top]
        top = [
            dict(label=int(i), name=model.names[i], score=round(float(scores[i]), 6)) for i in order
        ]
        results.append(dict(image=picture.name, file=str(picture.path), predictions=top))

    failed = for_each_picture(pictures, work, 'classification')
    rows = [
        (result['image'], rank, top['label'], top['name'], top['score'])
        for result in results
        for rank, top in enumerate(result['predictions'], start=1)
    ]
    out = Path(args.out)
    with write_beside(out / 'predictions.json') as beside:
        beside.write_text(json.dumps(results, indent=1, ensure_ascii=False), encoding='utf-8')
    with write_beside(out / 'predictions.csv') as beside:
        with open(beside, 'w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            writer.writerow(('image', 'rank', 'label', 'name', 'score'))
            writer.writerows(rows)
    for result in results:
        print(result['image'])
        for top in result['predictions']:
            print(f'  {100 * top["score"]:6.2f} %  {top["name"]}')
    return failed


@reports_errors
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    scope = cfg.get('default_scope')
    if scope not in ('mmseg', 'mmpretrain'):
        raise ValueError(
            f'{args.config} has default_scope={scope!r}: this tool runs segmentors (mmseg) and '
            'classifiers (mmpretrain)'
        )
    pictures = find_pictures(args.images, [args.out], suffixes_of(cfg))
    failed = (segment if scope == 'mmseg' else classify)(args, cfg, pictures)
    print(f'{len(pictures) - len(failed)} of {len(pictures)} pictures done: {args.out}')
    if failed:
        print(f'{len(failed)} failed: see the lines FAILED above', file=sys.stderr)
    return SOME_FAILED if failed else 0


if __name__ == '__main__':
    sys.exit(main())
