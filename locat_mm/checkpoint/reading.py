"""Files of weights, read without executing a pickle."""

import argparse
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

__all__ = ['StateDict', 'allow_plain_data', 'read_file', 'unwrap']

StateDict = Mapping[str, Tensor]

_WRAPPERS = ('state_dict', 'model')
#: What a truncated or garbled file raises, by where the damage is.
_UNREADABLE = (
    *(pickle.UnpicklingError, SafetensorError, EOFError, RuntimeError, struct.error),
    *(AttributeError, IndexError, KeyError, TypeError, ValueError),
)


def read_file(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a local file, onto the CPU.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is unreadable, needs a pickle executed, or holds no state dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path}')
    try:
        content = load_file(path) if path.suffix == '.safetensors' else _load_plain_data(path)
    except _UNREADABLE as error:
        # torch's own text goes on to advise the unsafe load.
        reason = str(error).rpartition('WeightsUnpickler error: ')[2].partition('\n')[0]
        raise ValueError(
            f'{path} cannot be read as weights alone, and nothing else is executed: {reason}'
        ) from error
    return unwrap(content, str(path))


def unwrap(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict of a checkpoint's content.

    Args:
        content: a state dict, possibly under ``state_dict`` or ``model``, as mmengine and timm
            write it.
        source: what to call it in the message.

    Returns:
        name -> tensor, without a ``module.`` in front.

    Raises:
        ValueError: if it holds no state dict.
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(f'{source} holds no state dict: {type(content).__name__}')
    return {key.removeprefix('module.'): value for key, value in content.items()}


def _load_plain_data(path: Path) -> Any:
    """torch's weights-only unpickler with a few plain classes more."""
    allow_plain_data()
    return torch.load(path, map_location='cpu', weights_only=True)


def allow_plain_data() -> None:
    """Let torch's weights-only unpickler read what mmengine and timm put beside weights.

    Also for mmengine's own reading: of its own checkpoints, 0.10.7 can read none with a torch
    that reads weights alone by default, and its successors fall back to running the pickle.
    """
    torch.serialization.add_safe_globals(_safe_globals())


def _safe_globals() -> list:
    """Plain data beside the weights: timm's arguments, mmengine's log history and schedule."""
    core = np._core if hasattr(np, '_core') else np.core  # type: ignore[attr-defined]
    return [
        argparse.Namespace,
        HistoryBuffer,
        OneCycleParamScheduler,
        (_fetch_method, 'builtins.getattr'),
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(t)) for t in (np.float64, np.float32, np.int64, np.uint32, np.bool_)),
    ]


def _fetch_method(owner: Any, name: str) -> Any:
    """All that pickle's ``getattr`` may fetch: the methods that mmengine keeps by name."""
    allowed = {
        HistoryBuffer: ('current', 'max', 'mean', 'min'),
        OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
    }
    if not isinstance(owner, type) or name not in allowed.get(owner, ()):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not executed')
    return getattr(owner, name)
