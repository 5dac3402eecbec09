"""Write digit_scenes, the small data set of the demo.

It has two parts, for pretraining (as ImageNet) and for segmentation (as ADE20K). The images are
composed from the handwritten digits that ship with scikit-learn (1,797 real 8×8 scans):

* ``objects/{train,val}/DIGIT/*.png``: one large digit per image; the folder is the label.
* ``scenes/{images,annotations}/{training,validation}/*.png``: several digits of different classes
  per image. In the mask, 0 is background and 1 + d is the convex hull of digit d.

The scans are split first, so no scan is in both train and validation. The same seed writes the same
files. ``meta.json`` records the settings.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits
from tqdm import trange

NUM_CLASSES = 10


class DigitSource:
    """The scans of one split, grouped by class."""

    def __init__(self, split: str) -> None:
        digits = load_digits()
        # The split does not depend on the seed: every fourth scan is for validation.
        is_val = np.arange(len(digits.target)) % 4 == 3
        chosen = is_val if split == 'val' else ~is_val
        images, labels = digits.images[chosen] / 16.0, digits.target[chosen]
        self.by_class = [images[labels == c] for c in range(NUM_CLASSES)]

    def draw(self, rng: np.random.Generator, label: int, side: int) -> np.ndarray:
        """Draw one scan of a class, rotated a little: ink in 0..1, ``[side, side]``."""
        scans = self.by_class[label]
        ink = cv2.resize(
            scans[rng.integers(len(scans))], (side, side), interpolation=cv2.INTER_CUBIC
        )
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-12, 12), 1.0)
        return cv2.warpAffine(ink, turn, (side, side)).clip(0, 1)


def smooth_noise(rng: np.random.Generator, side: int, cell: int = 16) -> np.ndarray:
    """Draw a dark colour with low-frequency noise: ``[side, side, 3]`` in 0..1."""
    knots = side // cell + 2
    coarse = rng.uniform(0.1, 0.35, 3) + rng.uniform(-0.15, 0.15, (knots, knots, 3))
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def paint(
    rng: np.random.Generator, image: np.ndarray, ink: np.ndarray, top: int, left: int
) -> tuple[slice, slice]:
    """Blend ink into the image, in a bright colour; return the window that was painted."""
    window = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
    colour = rng.uniform(0.4, 1.0, 3)
    colour[rng.integers(3)] = 1.0
    image[window] = image[window] * (1 - ink[..., None]) + colour * ink[..., None]
    return window


def add_clutter(
    rng: np.random.Generator, image: np.ndarray, source: DigitSource, count: int
) -> None:
    """Blend fragments of digits into the image; they are too small to be recognised."""
    side = image.shape[0]
    for _ in range(count):
        ink = source.draw(rng, int(rng.integers(NUM_CLASSES)), side // 2)
        size = side // 6
        top, left = rng.integers(0, ink.shape[0] - size, 2)
        fragment = ink[top : top + size, left : left + size]
        paint(rng, image, fragment, *rng.integers(0, side - size, 2))


def make_object(rng: np.random.Generator, source: DigitSource, label: int, side: int) -> np.ndarray:
    """Compose one large digit on colour noise: a BGR image."""
    image = smooth_noise(rng, side)
    add_clutter(rng, image, source, int(rng.integers(2)))
    size = int(rng.integers(side // 2, side - 1))
    paint(rng, image, source.draw(rng, label, size), *rng.integers(0, side - size, 2))
    return to_uint8(rng, image)


def make_scene(
    rng: np.random.Generator, source: DigitSource, side: int, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compose digits of different classes in most of ``cells × cells`` cells: image and mask."""
    image, mask = smooth_noise(rng, side), np.zeros((side, side), np.uint8)
    add_clutter(rng, image, source, int(rng.integers(3)))
    cell = side // cells
    num_digits = int(rng.integers(cells * cells - 1, cells * cells + 1))
    spots = rng.permutation(cells * cells)[:num_digits]
    labels = rng.permutation(NUM_CLASSES)[:num_digits]
    for spot, label in zip(spots, labels, strict=True):
        size = int(rng.integers(cell * 2 // 3, cell - 1))
        top = spot // cells * cell + rng.integers(0, cell - size)
        left = spot % cells * cell + rng.integers(0, cell - size)
        ink = source.draw(rng, int(label), size)
        window = paint(rng, image, ink, top, left)
        mask[window][outline(ink)] = label + 1
    return to_uint8(rng, image), mask


def outline(ink: np.ndarray) -> np.ndarray:
    """The convex hull of a digit's ink, as a bool mask."""
    points = np.argwhere(ink > 0.4)[:, ::-1].astype(np.int32)
    filled = np.zeros(ink.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled.astype(bool)


def to_uint8(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add weak Gaussian noise and convert to 8 bits."""
    return ((image + rng.normal(0, 0.02, image.shape)).clip(0, 1) * 255).round().astype(np.uint8)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}')


def source_hash() -> str:
    """A hash of this file: another version may write other images."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out-dir', type=Path, default=Path('data/digit_scenes'))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--object-size', type=int, default=48, help='side of an object image, in pixels'
    )
    parser.add_argument('--scene-size', type=int, default=72, help='side of a scene, in pixels')
    parser.add_argument('--cells', type=int, default=2, help='digits along a side of a scene')
    parser.add_argument(
        '--objects', type=int, nargs=2, default=(12000, 1000), metavar=('TRAIN', 'VAL')
    )
    parser.add_argument(
        '--scenes', type=int, nargs=2, default=(2000, 300), metavar=('TRAIN', 'VAL')
    )
    args = parser.parse_args(argv)
    for name in ('object_size', 'scene_size', 'cells'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be positive, got {getattr(args, name)}')
    if args.cells**2 > NUM_CLASSES:
        parser.error(f'--cells {args.cells} needs more than {NUM_CLASSES} different digits')
    if min(args.object_size, args.scene_size // args.cells) < 16:
        parser.error('a digit needs at least 16 px: enlarge the images or use fewer cells')
    if args.out_dir.exists() and not (args.out_dir / 'meta.json').exists():
        parser.error(f'{args.out_dir} exists and is no digit_scenes: choose another --out-dir')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Write to another folder, then rename: an interrupted run leaves no incomplete data set.
    partial = args.out_dir.with_name(args.out_dir.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    for index, split in enumerate(('train', 'val')):
        source = DigitSource(split)
        long_split = {'train': 'training', 'val': 'validation'}[split]
        # Each image has its own generator: fewer images are the first images of a larger data set.
        for i in trange(args.objects[index], desc=f'objects/{split}', mininterval=1):
            rng = np.random.default_rng((args.seed, index, 0, i))
            image = make_object(rng, source, i % NUM_CLASSES, args.object_size)
            write(partial / 'objects' / split / str(i % NUM_CLASSES) / f'{i:05d}.png', image)
        for i in trange(args.scenes[index], desc=f'scenes/{long_split}', mininterval=1):
            rng = np.random.default_rng((args.seed, index, 1, i))
            image, mask = make_scene(rng, source, args.scene_size, args.cells)
            write(partial / 'scenes' / 'images' / long_split / f'{i:05d}.png', image)
            write(partial / 'scenes' / 'annotations' / long_split / f'{i:05d}.png', mask)
    settings = {key: str(value) for key, value in vars(args).items() if key != 'out_dir'}
    (partial / 'meta.json').write_text(json.dumps({'source': source_hash(), **settings}))
    shutil.rmtree(args.out_dir, ignore_errors=True)
    partial.rename(args.out_dir)
    print(f'digit_scenes written to {args.out_dir}')


if __name__ == '__main__':
    main()
