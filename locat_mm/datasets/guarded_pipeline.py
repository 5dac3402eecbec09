"""A pipeline that names the broken file of a sample, or skips the sample."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset

from .file_damage import BadSampleError, check_end, find_damage
from .transforms import CheckAnnotations

__all__ = ['PATHS', 'GuardedPipeline', 'SkipLog', 'has_backend']

#: Keys of a sample that hold the path of a file.
PATHS = ('img_path', 'img_path2', 'seg_map_path', 'depth_map_path')


@dataclass
class SkipLog:
    """A file with the skipped samples. All workers of a process append to it.

    Args:
        path: of the file. A line is a sample's file, a tab and the problem.
        max_skipped: largest number of samples.
    """

    path: str
    max_skipped: int

    def read(self) -> dict[str, str]:
        """File -> problem."""
        if not os.path.exists(self.path):
            return {}
        lines = Path(self.path).read_text().splitlines()
        return {name: problem for name, _, problem in (line.partition('\t') for line in lines)}

    def add(self, name: str, problem: str) -> None:
        """Add a sample; a known one is not added again.

        Raises:
            BadSampleError: if there are ``max_skipped`` samples already.
        """
        known = self.read()
        if name in known:
            return
        if len(known) >= self.max_skipped:
            raise BadSampleError(
                f'{problem}. More than max_skipped={self.max_skipped} samples are broken; '
                f'{self.path} has the others'
            )
        with open(self.path, 'a') as file:  # appended short lines do not mix
            file.write(f'{name}\t{" ".join(problem.split())}\n')


class GuardedPipeline:
    """Calls a data set's pipeline and names the files of a sample if it fails.

    After a failure, it examines the files of the sample. A broken file or a wrong annotation
    raises a :class:`BadSampleError`, or with ``skipped`` the sample is skipped. Any other failure,
    such as a mistake in a transform, is always an error. :class:`CheckAnnotations` is added to the
    pipeline if it is missing.

    Args:
        dataset: the data set of the pipeline.
        skipped: log of the skipped samples; None: raise.
        hint: advice for the end of the error message.

    Raises:
        ValueError: if ``skipped`` is given and the data set does not replace skipped samples.
    """

    def __init__(self, dataset: Any, skipped: SkipLog | None = None, hint: str = '') -> None:
        self.inner = dataset.pipeline
        self.skipped = skipped
        self.hint = hint
        can_skip = isinstance(dataset, BaseDataset) and not dataset.test_mode
        if skipped is not None and not can_skip:
            raise ValueError(
                f"{type(dataset).__name__} takes no other sample for one that is broken: on_error='"
                "skip' needs a data set of mmengine's kind with test_mode=False"
            )
        found = [getattr(t, 'backend_args', None) for t in self.transforms]
        self.backend_args = next((a for a in found if a), getattr(dataset, 'backend_args', None))
        self.is_local = not has_backend(dataset, self.transforms)
        #: Keys of files that OpenCV and Pillow need not read: their loaders name what is wrong.
        self.checked = {
            key for step in self.transforms for key in getattr(step, 'CHECKED_PATHS', ())
        }
        _check_annotations(self.transforms, dataset)

    @property
    def transforms(self) -> list:
        return getattr(self.inner, 'transforms', [])

    def __call__(self, data: dict) -> dict | None:
        """
        Raises:
            BadSampleError: if a file or an annotation is broken.
            RuntimeError: if the pipeline fails on good files.
        """
        paths = [data[key] for key in PATHS if isinstance(data.get(key), str)]
        try:
            if self.is_local:
                for path in paths:
                    if '://' not in path:
                        check_end(path)
            return self.inner(data)
        except Exception as error:  # every one is explained or raised again
            problem = self._explain(error, data)
            if problem is None:
                if not paths:
                    raise
                raise RuntimeError(
                    f'{", ".join(paths)}: read without a fault, but the pipeline fails on it with '
                    f'{type(error).__name__}: {error}'
                ) from error
        if self.skipped is None:
            raise BadSampleError(f'{problem}. {self.hint}'.rstrip(' '), problem.kind) from None
        index = data.get('slice_index')  # of a volume, whose slices are samples
        self.skipped.add(paths[0] if index is None else f'{paths[0]}, slice {index}', str(problem))
        return None

    def _explain(self, error: Exception, data: dict) -> BadSampleError | None:
        if isinstance(error, BadSampleError):
            return error
        if not self.is_local and not self.backend_args:
            return None  # the older file_client_args: find_damage cannot read such files
        for path in (data[key] for key in PATHS if isinstance(data.get(key), str)):
            if path in (data.get(key) for key in self.checked):
                continue
            damage = find_damage(path, self.backend_args)
            if damage is not None:
                is_missing = 'cannot be read' in damage
                return BadSampleError(f'{path} {damage}', 'unreadable' if is_missing else 'damaged')
        return None

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.inner!r})'


def has_backend(dataset: Any, transforms: Iterable | None) -> bool:
    """Whether files are read through a file backend, so that they may be remote.

    Args:
        dataset: a data set or its config.
        transforms: of its pipeline, or their configs.
    """

    def value(part: Any, name: str) -> Any:
        return part.get(name) if isinstance(part, dict) else getattr(part, name, None)

    names = ('backend_args', 'file_client_args')
    return any(value(part, name) for part in (dataset, *(transforms or ())) for name in names)


def _check_annotations(transforms: list, dataset: Any) -> None:
    """Add CheckAnnotations behind the transform that loads annotations."""
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if not classes or any(isinstance(t, CheckAnnotations) for t in transforms):
        return
    ignore_index = getattr(dataset, 'ignore_index', 255)
    loading = [i for i, t in enumerate(transforms) if isinstance(t, LoadAnnotations)]
    if loading:
        transforms.insert(loading[-1] + 1, CheckAnnotations(len(classes), ignore_index))
    elif transforms and _has_classes(dataset):
        transforms.insert(0, CheckAnnotations(len(classes), ignore_index))


def _has_classes(dataset: Any) -> bool:
    """Whether labels are class numbers. A multi-task data set has other labels."""
    label = dataset.get_data_info(0).get('gt_label') if isinstance(dataset, BaseDataset) else None
    first = label[0] if isinstance(label, (list, tuple)) and label else label
    return isinstance(first, (int, np.integer))
