"""A report on every image and annotation of a data set, read before training."""

import functools
import hashlib
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.utils import ProgressBar
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .file_annotations import NODATA
from .file_damage import BadSampleError
from .guarded_pipeline import GuardedPipeline
from .transforms import CheckAnnotations

__all__ = ['Report', 'Samples', 'ValueUse']

#: Names that are printed for each kind of finding.
SHOWN = 5


@dataclass
class ValueUse:
    """Where a value occurs in masks.

    Args:
        first: the first mask that holds it.
        masks: number of masks that hold it.
        pixels: number of pixels.
    """

    first: str
    masks: int = 0
    pixels: int = 0


class Samples(Dataset):
    """Reads a data set; each item is a dict of findings about one sample."""

    def __init__(self, dataset: Any) -> None:
        loading = [t for t in dataset.pipeline.transforms if _loads(t)]
        dataset.pipeline = Compose(loading)
        dataset.pipeline = GuardedPipeline(dataset)
        self.dataset = dataset
        self.printed: Any = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        info = self.dataset.get_data_info(index)
        path, seg_map_path = info.get('img_path'), info.get('seg_map_path')
        found: dict = dict(name=path or f'sample {index}')
        if self.printed is None:  # each worker has a file of its own
            self.printed = tempfile.TemporaryFile()
        try:
            with _stderr_to(self.printed) as warned:
                data = self.dataset.pipeline(info)
        except BadSampleError as error:
            return {**found, 'problem': (error.kind, str(error))}
        if warned:
            found['warning'] = f'{path}: {warned[0]}'
        if path and 'img' in data:
            found['size'] = data['ori_shape'][:2]
            found['channels'] = data['img'].shape[2] if data['img'].ndim > 2 else 1
            found['nodata'] = int(data[NODATA].sum()) if NODATA in data else 0
            found['hash'] = _hash(path)
        if 'gt_seg_map' in data:
            mask = data['gt_seg_map']
            found['pixels'] = np.bincount(mask.ravel(), minlength=256)
            found['mask'] = seg_map_path
            if 'seg_map_path' not in self.dataset.pipeline.checked:
                found['problem'] = _check_depth(seg_map_path)
        elif 'gt_label' in data:
            found['labels'] = np.atleast_1d(data['gt_label']).tolist()
        return found


def _loads(transform: Any) -> bool:
    is_check = isinstance(transform, CheckAnnotations)
    return is_check or type(transform).__name__.startswith('Load')


def _check_depth(path: str) -> tuple[str, str] | None:
    """mmseg converts masks to 8 bits, so class 256 would become class 0."""
    if not os.path.isfile(path):
        return None
    with Image.open(path) as image:
        if image.mode in ('L', 'P', '1'):
            return None
        return 'mask of more than 8 bits', f'{path}: the mask has mode {image.mode}, and not L or P'


def _hash(path: str) -> bytes | None:
    return _hash_once(path, os.path.getmtime(path)) if os.path.isfile(path) else None


@functools.lru_cache(maxsize=4)  # the slices of a volume follow each other
def _hash_once(path: str, changed: float) -> bytes:
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()


@contextmanager
def _stderr_to(file: Any) -> Iterator[list[str]]:
    """Collect the lines that C libraries print to stderr. libjpeg reports damage only there."""
    lines: list[str] = []
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield lines
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if file.seek(0, os.SEEK_END):
            file.seek(0)
            lines += file.read().decode(errors='replace').splitlines()
            file.seek(0)
            file.truncate()


class Report:
    """The findings in all splits."""

    def __init__(self) -> None:
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.notes: dict[str, list[str]] = defaultdict(list)
        self.splits: dict[str, dict] = {}
        #: Value of the masks (as the pipeline gives them) -> its use in all splits.
        self.values: dict[int, ValueUse] = {}
        self._first: dict[bytes, tuple[str, str]] = {}

    def check(self, split: str, dataset: Any, num_workers: int) -> None:
        """Read a data set. Memory: one hash per image, and the names of damaged files."""
        start = time.perf_counter()
        classes = dataset.metainfo.get('classes') or ()
        ignore_index = getattr(dataset, 'ignore_index', 255)
        counts: Counter = Counter()
        channels: Counter = Counter()
        sizes: list[tuple[int, int]] = []
        loader = DataLoader(
            Samples(dataset), 32, num_workers=num_workers, collate_fn=list, prefetch_factor=None
        )
        progress = ProgressBar(len(dataset), file=sys.stderr)
        for batch in loader:
            for found in batch:
                self._add(split, found, counts, sizes, ignore_index)
                if 'channels' in found:
                    channels['nodata'] += found['nodata']
                    first = channels.setdefault('channels', found['channels'])
                    if found['channels'] != first:
                        self.problems['another number of channels'].append(
                            f'{split}: {found["name"]} has {found["channels"]}, the first image '
                            f'{first}'
                        )
            progress.update(len(batch))
        print(file=sys.stderr)
        counts.pop(ignore_index, None)
        for index, name in enumerate(classes):
            if not counts[index]:
                self.notes['class without a sample'].append(f'{split}: {index} {name}')
        seconds = time.perf_counter() - start
        unit = 'pixels' if hasattr(dataset, 'reduce_zero_label') else 'labels'
        # For images of other kinds than photographs.
        extra = dict(channels=channels['channels']) if channels['channels'] not in (0, 3) else {}
        if channels['nodata']:
            extra['pixels_without_data'] = channels['nodata']
        self.splits[split] = dict(
            samples=len(dataset),
            seconds=round(seconds, 1),
            samples_per_second=round(len(dataset) / seconds),
            smallest_and_largest_height=_ends(size[0] for size in sizes),
            smallest_and_largest_width=_ends(size[1] for size in sizes),
            **extra,
            **{f'{unit}_per_class': {_name(classes, i): counts[i] for i in sorted(counts)}},
        )

    def _add(
        self, split: str, found: dict, counts: Counter, sizes: list, ignore_index: int
    ) -> None:
        if found.get('problem'):
            kind, message = found['problem']
            self.problems[kind].append(f'{split}: {message}')
        if found.get('warning'):
            self.notes['decodes with a warning'].append(f'{split}: {found["warning"]}')
        if 'size' in found:
            sizes[:] = _span(sizes, found['size'])
        if found.get('hash'):
            other, name = self._first.setdefault(found['hash'], (split, found['name']))
            if other != split:
                self.notes['in two data sets'].append(f'{split}: {found["name"]} is {name}')
        if 'pixels' in found:
            pixels = found['pixels']
            for value in map(int, np.flatnonzero(pixels)):
                counts[value] += int(pixels[value])
                use = self.values.setdefault(value, ValueUse(found['mask']))
                use.masks += 1
                use.pixels += int(pixels[value])
            if pixels.sum() == pixels[ignore_index]:
                self.notes['mask without a label'].append(f'{split}: {found["name"]}')
        counts.update(found.get('labels', ()))

    def show(self) -> None:
        for split, summary in self.splits.items():
            print(f'\n{split}')
            for key, value in summary.items():
                if isinstance(value, dict):
                    value = ', '.join(f'{name} {count}' for name, count in value.items())
                print(f'  {key.replace("_", " ")}: {value}')
        for title, found in (('PROBLEM', self.problems), ('note', self.notes)):
            for kind, names in found.items():
                print(f'\n{title}: {kind} ({len(names)})')
                for name in names[:SHOWN]:
                    print(f'  {name}')
                if len(names) > SHOWN:
                    print(f'  ... and {len(names) - SHOWN} more (--out FILE lists all)')
        total = sum(map(len, self.problems.values()))
        print(f'\n{total} problems' if total else '\nno problems')


def _span(sizes: list, size: tuple[int, int]) -> list[tuple[int, int]]:
    heights, widths = zip(*sizes, size, strict=True)
    return [(min(heights), min(widths)), (max(heights), max(widths))]


def _ends(values: Iterator[int]) -> list[int]:
    return sorted({*values})


def _name(classes: Any, index: int) -> str:
    return str(classes[index]) if index < len(classes) else str(index)
