"""Look at a folder of your own data, check it, and write a config to train on it.

Segmentation: FOLDER/images/{train,val} and FOLDER/masks/{train,val}, or FOLDER/images and
FOLDER/masks, which are split at random. A mask is a single-channel image (PNG) with the number of
a class in each pixel; 255 has no label. FOLDER/classes.txt has a name a line, in the order of the
values. With n names and a highest value of n - 1, value 0 is the first class. With a highest value
of n, the names are for 1 to n, and value 0 has no label (reduce_zero_label=True).

Classification: FOLDER/{train,val}/CLASS/*.jpg, or FOLDER/CLASS/*.jpg, which are split at random.

All files are read. Nothing is written if one is broken or a value has no name.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from mmengine.registry import DATASETS, init_default_scope

from locat_mm.checkpoint import read_state_dict, write_beside
from locat_mm.cli.config_text import (
    TASKS,
    Model,
    choose_length,
    config_text,
    find_model,
    split_file,
)
from locat_mm.cli.reporting import reports_errors
from locat_mm.datasets import (
    ClassFolder,
    MaskFolder,
    Report,
    choose_zero_label,
    read_class_folder,
    read_mask_folder,
)

#: Findings of a kind that are printed.
SHOWN = 5


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, metavar='FOLDER')
    parser.add_argument(
        '--model',
        required=True,
        help='family and size as in the names of the configs: locatvit_tiny',
    )
    parser.add_argument('--task', required=True, choices=TASKS)
    parser.add_argument('--out', required=True, type=Path, help='the config to write (.py)')
    parser.add_argument(
        '--checkpoint', help='weights of the backbone: a file, hf-hub:OWNER/NAME or timm:NAME'
    )
    parser.add_argument(
        '--from-scratch', action='store_true', help='train the backbone from random weights'
    )
    parser.add_argument('--images', default='images', help='folder of the images in FOLDER')
    parser.add_argument('--masks', default='masks', help='folder of the masks in FOLDER')
    parser.add_argument(
        '--classes', type=Path, help='names of the classes (default: FOLDER/classes.txt)'
    )
    parser.add_argument(
        '--reduce-zero-label',
        action=argparse.BooleanOptionalAction,
        help='value 0 of the masks has no label; the default is chosen as said above',
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        help='share of the images to validate on, where FOLDER has no val (default: 0.2)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the random split')
    parser.add_argument('--num-workers', type=int, help='number of processes that read the files')
    parser.add_argument('--force', action='store_true', help='overwrite the config and its lists')
    args = parser.parse_args(argv)
    if args.out.suffix != '.py' or not args.out.stem.isidentifier():
        parser.error(f'--out must be a name of letters, digits and _ with .py, got {args.out}')
    if not 0 < args.val_fraction < 1:
        parser.error(f'--val-fraction must be between 0 and 1, got {args.val_fraction}')
    if args.task == 'classify':
        if args.classes or args.reduce_zero_label is not None:
            parser.error('--classes and --[no-]reduce-zero-label are for masks, not for classify')
    if args.from_scratch and (args.checkpoint or args.task == 'decode'):
        parser.error(
            '--from-scratch is for upernet and classify, without --checkpoint: a decoder on a '
            'frozen backbone with random weights learns nothing of use'
        )
    return args


def choose_weights(args: argparse.Namespace, model: Model) -> str | None:
    """
    Raises:
        FileNotFoundError: if the checkpoint is not there.
        ValueError: if there are no weights, or the file holds none.
    """
    source = args.checkpoint
    if args.from_scratch:
        return None
    if source is None and model.weights is None:
        scratch = '' if args.task == 'decode' else ', or train from random weights: --from-scratch'
        raise ValueError(
            f'there are no published weights of {args.model}, and a random backbone is of no use '
            f'for {args.task}. Give yours: --checkpoint FILE (from tools/train.py with '
            f'{args.model}_imagenet.py){scratch}. Published: locatvit_tiny, locatvit_base. For '
            'plain ViTs timm has weights: --model vit_tiny --checkpoint timm:vit_tiny_patch16_224'
        )
    if source is None:
        return model.weights
    if source.startswith(('hf-hub:', 'timm:')):
        return source
    read_state_dict(source)
    return os.path.abspath(source)


def read_classes(path: Path) -> list[str]:
    """
    Raises:
        ValueError: if the file is no list of different names.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no text in UTF-8: {error}') from error
    names = [line.strip() for line in lines]
    if not names:
        raise ValueError(f'{path} is empty: write the name of a class on each line')
    for number, name in enumerate(names, 1):
        if not name:
            raise ValueError(f'{path}, line {number} is empty: each line is the name of a class')
        if name in names[: number - 1]:
            raise ValueError(f'{path}, line {number}: {name!r} occurs twice')
    if len(names) > 255:
        raise ValueError(f'{path} has {len(names)} names; masks of 8 bits have 255 classes at most')
    return names


def check(folder: MaskFolder | ClassFolder, num_workers: int | None) -> Report:
    """Read all files.

    Raises:
        ValueError: if a file is broken.
    """
    report = Report()
    for split in ('train', 'val'):
        count = len(folder.splits[split].names)
        workers = min(os.cpu_count() or 1, count // 100) if num_workers is None else num_workers
        with tempfile.TemporaryDirectory() as place:
            file = Path(place, f'{split}.txt')
            file.write_text(list_names(folder, split))
            report.check(split, DATASETS.build(describe(folder, split, str(file))), workers)
    if report.problems:
        lines = []
        for kind, found in report.problems.items():
            lines += [f'{kind} ({len(found)})', *(f'  {line}' for line in found[:SHOWN])]
            lines += [f'  ... and {len(found) - SHOWN} more'] * (len(found) > SHOWN)
        raise ValueError(
            f'{sum(map(len, report.problems.values()))} files are broken, and nothing was '
            'written:\n' + '\n'.join(lines)
        )
    return report


def list_names(folder: MaskFolder | ClassFolder, split: str) -> str:
    names = folder.splits[split].names
    if isinstance(folder, ClassFolder):
        names = [f'{name} {folder.classes.index(name.split("/")[0])}' for name in names]
    return '\n'.join(names) + '\n'


def describe(folder: MaskFolder | ClassFolder, split: str, file: str) -> dict:
    """Config of a data set that gives each file as it is."""
    part, root = folder.splits[split], str(folder.root.absolute())
    load = dict(type='LoadImageFromFile')
    if isinstance(folder, ClassFolder):
        return dict(
            type='CustomDataset',
            data_root=root,
            data_prefix=part.images,
            ann_file=file,
            metainfo=dict(classes=folder.classes),
            pipeline=[load],
        )
    return dict(
        type='BaseSegDataset',
        data_root=root,
        data_prefix=dict(img_path=part.images, seg_map_path=part.masks),
        ann_file=file,
        img_suffix=folder.image_suffix,
        seg_map_suffix=folder.mask_suffix,
        pipeline=[
            load,
            dict(type='LoadAnnotations'),
            dict(type='locat_mm.CheckAnnotations', num_classes=256),
        ],
    )


def show_files(folder: MaskFolder | ClassFolder, report: Report) -> None:
    train, val = (len(folder.splits[split].names) for split in ('train', 'val'))
    how = ', split at random' if folder.is_divided else ''
    print(f'{folder.root}: {train} images to train on, {val} to validate on{how}')
    for split, summary in report.splits.items():
        ends = [summary[f'smallest_and_largest_{side}'] for side in ('height', 'width')]
        high, wide = (' to '.join(map(str, end)) for end in ends)
        print(f'  {split}: {high} pixels high, {wide} wide')
    notes = dict(report.notes)
    if folder.unused:
        kind = 'mask without an image' if isinstance(folder, MaskFolder) else 'not an image'
        notes[kind] = folder.unused
    for kind, found in notes.items():
        more = ', ...' if len(found) > 3 else ''
        print(f'  note: {kind} ({len(found)}): {", ".join(found[:3])}{more}')


def show_values(report: Report, names: list[str], reduced: bool) -> None:
    total = sum(use.pixels for use in report.values.values())
    print('  value   pixels    masks  name')
    for value in sorted({*report.values, *range(reduced, len(names) + reduced)}):
        use = report.values.get(value)
        is_class = reduced <= value < len(names) + reduced
        name = names[value - reduced] if is_class else '(no label)'
        share = f'{use.pixels / total:7.2%}' if use else '   none'
        print(f'  {value:5}  {share}  {use.masks if use else 0:7}  {name}')


def segment(args: argparse.Namespace) -> tuple[MaskFolder, list[str], bool]:
    """The folder, names of the classes, ``reduce_zero_label``."""
    folder = read_mask_folder(args.folder, args.images, args.masks, args.val_fraction, args.seed)
    usual = [args.folder / 'classes.txt', args.folder / args.masks / 'classes.txt']
    path = args.classes or next((p for p in usual if p.is_file()), usual[0])
    names = read_classes(path) if path.is_file() else None
    report = check(folder, args.num_workers)
    show_files(folder, report)
    if names is None:
        values = ', '.join(map(str, sorted(report.values)))
        raise FileNotFoundError(
            f'there is no file {path}: write the name of a class on each line, in the order of '
            f'the values. The masks hold the values {values} (255 has no label)'
        )
    reduced, reason = choose_zero_label(names, report.values, args.reduce_zero_label, str(path))
    show_values(report, names, reduced)
    print(f'reduce_zero_label = {reduced}: {reason}')
    return folder, names, reduced


def classify(args: argparse.Namespace) -> tuple[ClassFolder, list[str]]:
    folder = read_class_folder(args.folder, args.val_fraction, args.seed)
    report = check(folder, args.num_workers)
    show_files(folder, report)
    counts = [report.splits[split]['labels_per_class'] for split in ('train', 'val')]
    print('  train    val  class')
    for name in folder.classes:
        print('  ' + '  '.join(f'{count.get(name, 0):5}' for count in counts) + f'  {name}')
    return folder, folder.classes


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    for path in (args.out, *(split_file(args.out, split) for split in ('train', 'val'))):
        if path.exists() and not args.force:
            raise FileExistsError(f'{path} exists: give another --out, or --force to overwrite it')
    model = find_model(args.model, args.task)
    weights = choose_weights(args, model)
    init_default_scope('mmpretrain' if args.task == 'classify' else 'mmseg')
    folder: MaskFolder | ClassFolder
    if args.task == 'classify':
        reduced = False
        folder, names = classify(args)
    else:
        folder, names, reduced = segment(args)
    text = config_text(args.task, args.model, model, weights, folder, names, reduced, args.out)
    if folder.is_divided:
        for split in ('train', 'val'):
            with write_beside(split_file(args.out, split)) as beside:
                beside.write_text(list_names(folder, split))
            print(f'{split_file(args.out, split)} written')
    with write_beside(args.out) as beside:
        beside.write_text(text)
    length = choose_length(args.task, len(folder.splits['train'].names))
    print(f'weights of the backbone: {weights or "random (trained from scratch)"}')
    print(f'{args.out} written: batches of {length.batch_size} images, {length.words}')
    print(f'Train: python tools/train.py {args.out}')


if __name__ == '__main__':
    sys.exit(main())
