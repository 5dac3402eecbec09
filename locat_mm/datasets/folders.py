"""The files of a user's own data: images with masks, or images in class folders."""

import os
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

__all__ = ['ClassFolder', 'MaskFolder', 'Split', 'read_class_folder', 'read_mask_folder']

#: Formats that mmpretrain's CustomDataset lists; OpenCV reads them all.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
SPLIT_NAMES = (('train', 'val'), ('training', 'validation'))
#: Names that are printed in a message.
SHOWN = 5

MASK_LAYOUT = """\
  {root}/{images}/train/NAME.jpg  {root}/{masks}/train/NAME.png
  {root}/{images}/val/NAME.jpg    {root}/{masks}/val/NAME.png
or, for a random split,
  {root}/{images}/NAME.jpg        {root}/{masks}/NAME.png"""
CLASS_LAYOUT = """\
  {root}/train/CLASS/NAME.jpg
  {root}/val/CLASS/NAME.jpg
or, for a random split,
  {root}/CLASS/NAME.jpg"""


@dataclass
class Split:
    """One part of the data.

    Args:
        names: of its samples, below the image folder: without the suffix for images with masks,
            ``CLASS/FILE`` for class folders.
        images: folder of the images, below the root.
        masks: folder of the masks, below the root.
    """

    names: list[str]
    images: str = ''
    masks: str = ''


@dataclass
class MaskFolder:
    """Images with masks.

    Args:
        root: the user's folder.
        splits: ``train`` and ``val``.
        is_divided: the folder has no train and val, so the names must be listed in files.
        image_suffix: common to all images.
        mask_suffix: what follows an image's name in the name of its mask: ``.png``,
            ``_mask.png``.
        unused: masks without an image.
    """

    root: Path
    splits: dict[str, Split]
    is_divided: bool
    image_suffix: str
    mask_suffix: str
    unused: list[str]

    def mask_paths(self) -> list[Path]:
        return [
            self.root / split.masks / (name + self.mask_suffix)
            for split in self.splits.values()
            for name in split.names
        ]


@dataclass
class ClassFolder:
    """Images in class folders.

    Args:
        root, splits, is_divided: as for :class:`MaskFolder`.
        classes: names of the class folders, sorted.
        unused: files of other kinds.
    """

    root: Path
    splits: dict[str, Split]
    is_divided: bool
    classes: list[str]
    unused: list[str]


def read_mask_folder(
    root: Path, images: str, masks: str, val_fraction: float, seed: int
) -> MaskFolder:
    """Find the images, their masks and the split.

    Args:
        root: the user's folder.
        images, masks: the two folders in it.
        val_fraction: share of the images to validate on, where the folder has no split.
        seed: of that split.

    Raises:
        FileNotFoundError: if a folder or a mask is missing.
        ValueError: if images are of several kinds, or masks are not flat single-channel images.
    """
    layout = MASK_LAYOUT.format(root=root, images=images, masks=masks)
    _check_root(root, layout)
    found = _find_parts(root, [f'{images}/{{}}', f'{{}}/{images}'])
    if found:
        places = {split: (part, part.replace(images, masks, 1)) for split, part in found.items()}
    elif _files(root / images, IMAGE_SUFFIXES):
        places = dict(all=(images, masks))
    else:
        raise FileNotFoundError(
            f'{root} has no images in {images}/train or {images}. Expected:\n{layout}\nIt holds: '
            f'{_contents(root)}. Other names: --images NAME --masks NAME'
        )
    listed = {split: _files(root / image, IMAGE_SUFFIXES) for split, (image, _) in places.items()}
    for split, (image, mask) in places.items():
        if not listed[split]:
            raise FileNotFoundError(f'{root / image} has no image ({", ".join(IMAGE_SUFFIXES)})')
        if not (root / mask).is_dir():
            raise FileNotFoundError(
                f'there is no folder {root / mask} with the masks of {root / image}. '
                f'Expected:\n{layout}\nAnother name: --masks NAME'
            )
    image_suffix = _common_suffix([name for names in listed.values() for name in names], root)
    stems = {s: [name.removesuffix(image_suffix) for name in n] for s, n in listed.items()}
    all_masks = {split: set(_files(root / mask)) for split, (_, mask) in places.items()}
    mask_suffix = _mask_suffix(stems, all_masks)
    missing = [
        f'{root / places[split][0] / name}{image_suffix}'
        for split, names in stems.items()
        for name in names
        if name + mask_suffix not in all_masks[split]
    ]
    if missing:
        split, name = next((s, n[0]) for s, n in stems.items() if n)
        example = root / places[split][1] / (name + mask_suffix)
        raise FileNotFoundError(
            f'{len(missing)} of {sum(map(len, stems.values()))} images have no mask: '
            f'{_some(missing)}. The mask of an image has its name and ends in {mask_suffix!r}, as '
            f'{example}'
        )
    unused = [
        str(root / places[split][1] / name)
        for split, names in all_masks.items()
        for name in sorted(names - {stem + mask_suffix for stem in stems[split]})
        if name.lower().endswith(IMAGE_SUFFIXES)
    ]
    splits = {
        split: Split(names, *places['all' if 'all' in places else split])
        for split, names in _divide(stems, val_fraction, seed).items()
    }
    folder = MaskFolder(root, splits, 'all' in places, image_suffix, mask_suffix, unused)
    _check_masks(folder.mask_paths(), root / places[next(iter(places))][1].split('/')[0])
    return folder


def read_class_folder(root: Path, val_fraction: float, seed: int) -> ClassFolder:
    """Find the classes, their images and the split.

    Args:
        root, val_fraction, seed: as for :func:`read_mask_folder`. Each class is split on its
            own; a class with one image is in ``train`` alone.

    Raises:
        FileNotFoundError: if there are no class folders, or one of them holds no image.
        ValueError: if there are fewer than two classes, or ``train`` and ``val`` have different
            ones.
    """
    layout = CLASS_LAYOUT.format(root=root)
    _check_root(root, layout)
    found = _find_parts(root, ['{}'])
    places = found or dict(all='')
    classes = {
        split: sorted(p.name for p in (root / place).iterdir() if p.is_dir() and _is_shown(p.name))
        for split, place in places.items()
    }
    first, *others = classes.values()
    if len(first) < 2:
        raise ValueError(
            f'{root} has {len(first)} class folders ({_some(first) or "none"}); at least 2 are '
            f'needed. Expected:\n{layout}\nIt holds: {_contents(root)}'
        )
    if first == ['images', 'masks']:
        raise ValueError(
            f'{root} holds images and masks, and no class folders: use --task decode or upernet'
        )
    if others and others[0] != first:
        differing = sorted(set(first) ^ set(others[0]))
        raise ValueError(
            f'{" and ".join(str(root / place) for place in places.values())} must have the same '
            f'class folders; only one of them has {_some(differing)}'
        )
    names: dict[str, list[str]] = {}
    unused: list[str] = []
    for split, place in places.items():
        names[split] = []
        for name in first:
            files = _files(root / place / name)
            images = [f for f in files if f.lower().endswith(IMAGE_SUFFIXES)]
            if not images:
                raise FileNotFoundError(
                    f'class folder {root / place / name} has no image ({", ".join(IMAGE_SUFFIXES)})'
                )
            names[split] += [f'{name}/{file}' for file in images]
            unused += [str(root / place / name / file) for file in sorted({*files} - {*images})]
    splits = {
        split: Split(part, places.get(split, ''))
        for split, part in _divide(names, val_fraction, seed, by_class=True).items()
    }
    return ClassFolder(root, splits, not found, first, unused)


def _check_root(root: Path, layout: str) -> None:
    if not root.is_dir():
        raise FileNotFoundError(f'there is no folder {root} (looked from {Path.cwd()})')
    if not any(root.iterdir()):
        raise FileNotFoundError(f'{root} is empty. Expected:\n{layout}')


def _find_parts(root: Path, patterns: list[str]) -> dict[str, str]:
    """``train`` and ``val`` -> their folders, or nothing where the folder has no split."""
    for pattern in patterns:
        for names in SPLIT_NAMES:
            places = [pattern.format(name) for name in names]
            there = [(root / place).is_dir() for place in places]
            if all(there):
                return dict(zip(('train', 'val'), places, strict=True))
            if any(there):
                missing = places[there.index(False)]
                raise FileNotFoundError(
                    f'{root / places[there.index(True)]} is there, but {root / missing} is not: '
                    'both are needed. For a random split, put all into one folder'
                )
    return {}


def _files(folder: Path, suffixes: tuple[str, ...] = ('',)) -> list[str]:
    """Files of a folder and those inside it, by their path below it; hidden ones are left out."""
    return sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if _is_shown(name) and name.lower().endswith(suffixes)
    )


def _is_shown(name: str) -> bool:
    return not name.startswith('.')


def _common_suffix(names: Iterable[str], root: Path) -> str:
    found = Counter(Path(name).suffix for name in names)
    if len(found) > 1:
        counts = ', '.join(f'{count} in {suffix}' for suffix, count in found.most_common())
        raise ValueError(
            f"the images in {root} end differently: {counts}. mmseg's data set takes one suffix: "
            'convert or rename them'
        )
    return next(iter(found))


def _mask_suffix(stems: dict[str, list[str]], masks: dict[str, set[str]]) -> str:
    """The ending that gives the most images a mask."""
    votes: Counter = Counter()
    for split, names in stems.items():
        by_start = sorted(masks[split])
        for name in names[:20]:
            votes.update(m.removeprefix(name) for m in by_start if m.startswith(name))
    fits = {
        suffix: sum(n + suffix in masks[split] for split, names in stems.items() for n in names)
        for suffix in votes
        if suffix.lower().endswith(('.png', '.bmp', '.tif', '.tiff', '.jpg', '.jpeg', '.gif'))
    }
    return max(fits, key=lambda suffix: (fits[suffix], -len(suffix)), default='.png')


def _check_masks(paths: list[Path], folder: Path) -> None:
    """Check the headers of the masks."""
    if paths[0].suffix.lower() in ('.jpg', '.jpeg'):
        raise ValueError(
            f'the masks are JPEG files, such as {paths[0]}: JPEG changes values near edges, so '
            'the classes are lost. Export the masks again as PNG'
        )
    coloured = []
    for path in paths:
        try:
            with Image.open(path) as mask:
                if mask.mode in ('RGB', 'RGBA'):
                    coloured.append(path)
        except (OSError, UnidentifiedImageError):
            pass  # a damaged file, which the check of all files names
    if coloured:
        raise ValueError(
            f'{len(coloured)} of {len(paths)} masks are RGB images, such as {coloured[0]}; each '
            'pixel must hold the number of its class. To convert them:\n  python '
            f'tools/dataset_converters/colour_masks.py {folder} {folder}_indexed\nand then '
            f'--masks {folder.name}_indexed'
        )


def _divide(
    names: dict[str, list[str]], val_fraction: float, seed: int, by_class: bool = False
) -> dict[str, list[str]]:
    if 'all' not in names:
        return names
    groups: dict[str, list[str]] = {}
    for name in names['all']:
        groups.setdefault(name.split('/')[0] if by_class else '', []).append(name)
    rng = random.Random(seed)
    train: list[str] = []
    val: list[str] = []
    for group in groups.values():
        shuffled = rng.sample(group, len(group))
        count = min(max(1, round(val_fraction * len(group))), len(group) - 1)
        val += shuffled[:count]
        train += shuffled[count:]
    if not val:
        raise ValueError(f'{len(train)} images cannot be split: at least 2 are needed')
    return dict(train=sorted(train), val=sorted(val))


def _some(names: list[str]) -> str:
    return ', '.join(names[:SHOWN]) + (', ...' if len(names) > SHOWN else '')


def _contents(root: Path) -> str:
    names = sorted(p.name + '/' * p.is_dir() for p in root.iterdir())
    return _some(names)
