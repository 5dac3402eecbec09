"""What runs of these programs start from, and whether two of them end in the same state."""

import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import locat_mm  # noqa: F401  (what checkpoints hold is read with its classes)
from tests.support import ROOT

__all__ = ['differences', 'last_checkpoint', 'write_data']


def write_data(folder: Path) -> None:
    """128 images of digits for pretraining and 24 scenes for decoding."""
    script = ROOT / 'tools' / 'dataset_converters' / 'digit_scenes.py'
    counts = ['--objects', '128', '40', '--scenes', '24', '6']
    out = ['--out-dir', str(folder / 'data' / 'digit_scenes')]
    runpy.run_path(str(script))['main']([*counts, *out])


def last_checkpoint(work_dir: Path) -> Path:
    return Path((work_dir / 'last_checkpoint').read_text())


def differences(path: Path, other: Path) -> list[str]:
    """Names of what differs in a bit between the states that two checkpoints hold."""
    ours, theirs = (dict(_leaves(_state(torch.load(p, weights_only=False)))) for p in (path, other))
    return [
        name
        for name in sorted({*ours, *theirs})
        if name not in ours or name not in theirs or not _equal(ours[name], theirs[name])
    ]


def _state(checkpoint: dict) -> dict:
    hub = checkpoint['message_hub']
    return dict(
        {key: checkpoint[key] for key in ('state_dict', 'optimizer', 'param_schedulers')},
        progress={key: checkpoint['meta'][key] for key in ('epoch', 'iter')},
        losses={k: v.data for k, v in hub['log_scalars'].items() if 'loss' in k or 'lr' in k},
        best={k: v for k, v in hub['runtime_info'].items() if k.startswith('best_score')},
    )


def _leaves(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        items: Iterable = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, inner in items:
        yield from _leaves(inner, f'{name}.{key}' if name else str(key))


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dtype == other.dtype and torch.equal(value, other)
    return bool(np.array_equal(value, other))
