"""Convert masks with a colour per class to masks with the number of a class in each pixel.

All images in MASKS, also in folders inside it, are converted to PNG files with a palette, under
the same names in OUT. OUT/classes.txt gets the names of the classes. OUT/palette.txt gets the
colours.

With --palette FILE, a line of the file is "R G B name". The first line is value 0. A colour with
the name - has no label: it becomes 255 and takes no number. A colour that is not in the file is an
error. Without --palette, the colours are numbered in the order of R, G, B, so black is 0. Then
rename the classes in OUT/classes.txt.
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from mmengine.utils import track_iter_progress
from PIL import Image

from locat_mm.cli.reporting import reports_errors

SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.gif', '.ppm', '.jpg', '.jpeg')
NO_LABEL = 255
#: Colours that are printed in a message.
SHOWN = 10
#: Colour (24 bits) -> value and name.
Palette = dict[int, tuple[int, str]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('masks', type=Path, metavar='MASKS', help='folder of coloured masks')
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write')
    parser.add_argument('--palette', type=Path, help='text file of colours and names')
    return parser.parse_args(argv)


def find_masks(folder: Path, out: Path) -> list[Path]:
    """
    Raises:
        FileExistsError: if there is something at ``out``.
        FileNotFoundError: if there are no masks.
        ValueError: if masks are JPEG files, two of them would get the same name, or ``out`` is
            inside the folder.
    """
    if out.exists():
        raise FileExistsError(f'{out} exists: give another name')
    if folder.resolve() in out.resolve().parents:
        raise ValueError(f'{out} is inside {folder}: give a folder beside it')
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {folder} (looked from {Path.cwd()})')
    paths = sorted(
        path
        for path in folder.rglob('*')
        if path.suffix.lower() in SUFFIXES and not path.name.startswith('.')
    )
    if not paths:
        raise FileNotFoundError(f'{folder} has no image ({", ".join(SUFFIXES)})')
    lossy = [path for path in paths if path.suffix.lower() in ('.jpg', '.jpeg')]
    if lossy:
        raise ValueError(
            f'{len(lossy)} masks are JPEG files, such as {lossy[0]}: JPEG changes colours near '
            'edges, so the classes are lost. Export the masks again as PNG'
        )
    targets = Counter(path.with_suffix('') for path in paths)
    twice = [str(name) for name, count in targets.items() if count > 1]
    if twice:
        raise ValueError(f'two masks have the same name but for the suffix: {twice[0]}.*')
    return paths


def read_palette(path: Path) -> Palette:
    """Read the colours from the user's file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is no colour with a name.
    """
    colours: Palette = {}
    count = 0
    for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split(maxsplit=3)
        if len(parts) != 4 or not all(p.isdecimal() and int(p) < 256 for p in parts[:3]):
            raise ValueError(
                f'{path}, line {number}: {line!r} is not "R G B name", with numbers from 0 to 255'
            )
        red, green, blue, name = *map(int, parts[:3]), parts[3].strip()
        colour = red << 16 | green << 8 | blue
        if colour in colours:
            raise ValueError(f'{path}, line {number}: the colour {red} {green} {blue} occurs twice')
        colours[colour] = (NO_LABEL, name) if name == '-' else (count, name)
        count += name != '-'
    if not 0 < count <= NO_LABEL:
        raise ValueError(f'{path} has {count} classes; 1 to {NO_LABEL} are possible')
    return colours


def read_colours(path: Path) -> np.ndarray:
    """A mask as 24-bit colours, ``[H, W]``. An alpha channel is ignored.

    Raises:
        ValueError: if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(('I', 'F')):
                raise ValueError(f'{path} has mode {image.mode}: it holds numbers, and no colours')
            pixels = np.asarray(image.convert('RGB')).astype(np.int32)
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be decoded: {error}') from error
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def find_palette(paths: list[Path]) -> Palette:
    """All colours of the masks.

    Raises:
        ValueError: if there are more than 255.
    """
    found: dict[int, Path] = {}
    for path in track_iter_progress(paths, file=sys.stderr):
        for colour in np.unique(read_colours(path)):
            found.setdefault(int(colour), path)
        if len(found) > NO_LABEL:
            raise ValueError(
                f'the masks hold more than {NO_LABEL} colours by {path}: they are no flat colours, '
                'but smoothed or stored with loss. Export them without smoothing, or give '
                '--palette FILE to see which colours are too many'
            )
    return {
        colour: (value, 'colour_' + '_'.join(map(str, split(colour))))
        for value, colour in enumerate(sorted(found))
    }


def split(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255


def convert(
    paths: list[Path], folder: Path, out: Path, palette: dict[int, tuple[int, str]]
) -> None:
    """
    Raises:
        ValueError: if masks have a colour that is not in the palette.
    """
    table = np.full(1 << 24, -1, np.int16)
    flat = np.zeros((256, 3), np.uint8)
    for colour, (value, _) in palette.items():
        table[colour] = value
        flat[value] = split(colour)
    unknown: dict[int, Path] = {}
    pixels: Counter = Counter()
    for path in track_iter_progress(paths, file=sys.stderr):
        colours = read_colours(path)
        values = table[colours]
        strange, counts = np.unique(colours[values < 0], return_counts=True)
        for colour, count in zip(strange.tolist(), counts.tolist(), strict=True):
            unknown.setdefault(colour, path)
            pixels[colour] += count
        target = out / path.relative_to(folder).with_suffix('.png')
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette(flat.tobytes())
        image.save(target)
    if unknown:
        listed = [
            f'  {" ".join(map(str, split(colour)))}: {count} pixels, first in {unknown[colour]}'
            for colour, count in pixels.most_common(SHOWN)
        ]
        more = [f'  ... and {len(unknown) - SHOWN} more'] * (len(unknown) > SHOWN)
        raise ValueError(
            f'{len(unknown)} colours of the masks are not in the palette, and nothing was '
            'written:\n' + '\n'.join([*listed, *more])
        )


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    palette = read_palette(args.palette) if args.palette else None
    paths = find_masks(args.masks, args.out)
    if palette is None:
        palette = find_palette(paths)
    # Write to another folder, then rename: an error leaves nothing half-written.
    partial = args.out.with_name(f'.{args.out.name}.{os.getpid()}.tmp')
    try:
        convert(paths, args.masks, partial, palette)
        names = [name for _, name in palette.values() if name != '-']
        (partial / 'classes.txt').write_text('\n'.join(names) + '\n')
        lines = [' '.join(map(str, (*split(c), name))) for c, (_, name) in palette.items()]
        (partial / 'palette.txt').write_text('\n'.join(lines) + '\n')
        partial.rename(args.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f'\n{len(paths)} masks written to {args.out}')
    for colour, (value, name) in palette.items():
        print(f'  {value:3}  {" ".join(f"{c:3}" for c in split(colour))}  {name}')
    if args.palette is None:
        print(f'Write the names of the classes into {args.out / "classes.txt"}.')


if __name__ == '__main__':
    sys.exit(main())
