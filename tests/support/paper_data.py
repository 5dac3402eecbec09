"""Miniatures of ImageNet and ADE20K, in the layouts that the paper's configs read."""

from pathlib import Path

import numpy as np
from PIL import Image

from .raw_datasets import photo, stripes

WNIDS = ('n01440764', 'n01443537')


def write_imagenet(root: Path, count: int) -> None:
    """``count`` images of each of two classes in both splits, which ``meta`` lists."""
    for split in ('train', 'val'):
        lines = []
        for label, wnid in enumerate(WNIDS):
            for number in range(count):
                name = f'{wnid}/{wnid}_{number}.JPEG'
                _save(photo(64, 64, label * count + number), root / split / name)
                lines.append(f'{name} {label}\n')
        listed = root / 'meta' / f'{split}.txt'
        listed.parent.mkdir(exist_ok=True)
        listed.write_text(''.join(lines))


def write_ade20k(root: Path, count: int) -> None:
    """``count`` images with masks of 0 (no label) and two classes, in both splits."""
    for split in ('training', 'validation'):
        for number in range(count):
            name = f'ADE_{split[:5]}_{number:08}'
            _save(photo(64, 64, number), root / 'images' / split / f'{name}.jpg')
            mask = stripes([0, 1, 2, 1], 64, 64)
            _save(mask, root / 'annotations' / split / f'{name}.png')


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
