"""Finds missing files and folders of a data set before it is used."""

import inspect
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmengine.fileio import list_dir_or_file
from mmengine.registry import DATASETS

from .guarded_pipeline import PATHS, has_backend

__all__ = ['check_sources', 'missing_files']


def missing_files(dataset: Any) -> list[str]:
    """Paths of missing images and masks of a data set, in its order.

    Every folder is listed once, because a network file system is slow with a check per file.
    Images are not checked if the data set has listed a folder to find them. Remote files are not
    checked.

    Args:
        dataset: a ``BaseDataset`` of mmengine, no wrapper.
    """
    first = dataset.get_data_info(0) if len(dataset) else {}
    was_listed = not getattr(dataset, 'ann_file', None) or os.path.isdir(dataset.ann_file)
    keys = [key for key in PATHS if isinstance(first.get(key), str)]
    if was_listed and 'img_path' in keys:
        keys.remove('img_path')
    if not keys or has_backend(dataset, getattr(dataset.pipeline, 'transforms', ())):
        return []
    folders: dict[str, set[str]] = defaultdict(set)
    missing = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for path in (info[key] for key in keys if info.get(key)):
            folder, name = os.path.split(path)
            if '://' in path:
                continue
            if folder not in folders:
                here = folder or '.'
                folders[folder] = set(os.listdir(here)) if os.path.isdir(here) else set()
            if name not in folders[folder]:
                missing.append(path)
    return missing


def check_sources(loader: str, cfg: dict, scope: str) -> None:
    """Check the sources of a data set before it is built, so that errors name the path.

    Args:
        loader: name of its data loader, for the message.
        cfg: config of the data set.
        scope: registry scope of its type.

    Raises:
        FileNotFoundError: if its split or a folder does not exist.
        ValueError: if its split is empty, or its folder has no file with the suffix.
    """
    root, split = str(cfg.get('data_root') or ''), cfg.get('ann_file')
    if '://' in root or has_backend(cfg, cfg.get('pipeline')):
        return
    if split:
        path = Path(root, split)
        if not path.is_file():
            raise FileNotFoundError(f'{loader}: there is no file {path}, the split (ann_file)')
        if path.suffix == '.txt' and not path.read_text().strip():
            raise ValueError(f'{loader}: {path}, the split (ann_file), names no sample')
    prefix = cfg.get('data_prefix') or {}
    folders = prefix if isinstance(prefix, dict) else {'img_path': prefix}
    for key, folder in folders.items():
        if not isinstance(folder, str) or '://' in folder:
            continue
        path = Path(root, folder)
        if not path.exists():
            raise FileNotFoundError(f'{loader}: there is no folder {path} (data_prefix.{key})')
        if key == 'img_path' and not split and path.is_dir():
            suffix = cfg.get('img_suffix') or _default_suffix(cfg['type'], scope)
            if next(iter(list_dir_or_file(path, False, True, suffix, True)), None) is None:
                raise ValueError(
                    f'{loader}: {path} (data_prefix.{key}) has no file'
                    + (f' that ends in {suffix!r} (img_suffix)' if suffix else '')
                )


def _default_suffix(kind: str | type, scope: str) -> str | None:
    with DATASETS.switch_scope_and_registry(scope) as registry:
        cls = registry.get(kind) if isinstance(kind, str) else kind
    parameter = inspect.signature(cls).parameters.get('img_suffix') if cls else None
    return parameter.default if parameter else None
