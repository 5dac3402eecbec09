"""Files of weights, read without executing a pickle."""

import argparse
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

__all__ = ['StateDict', 'allow_plain_data', 'read_content', 'read_file', 'unwrap']

StateDict = Mapping[str, Tensor]

_WRAPPERS = ('state_dict', 'model')
#: Errors with a text that says what is wrong with a file.
_TELLING = (
    *(pickle.UnpicklingError, SafetensorError, zipfile.BadZipFile),
    *(OSError, RuntimeError, ValueError),
)
#: Whether files may execute code while they are read; see `trust_checkpoints` in sources.py.
is_trusting = False


def read_file(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a local file, onto the CPU.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is unreadable, damaged, needs a pickle executed, or holds no state
            dict.
    """
    return unwrap(read_content(path), str(path))


def read_content(path: str | Path, map_location: Any = 'cpu') -> Any:
    """All that is in a local file: of a checkpoint also optimizer, schedule and log.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``.
        map_location: as in ``torch.load``; not for ``.safetensors``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is unreadable, damaged or needs a pickle executed.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise FileNotFoundError(f'{path} is a folder, no checkpoint')
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path}')
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        _check_sums(path)
        return _load_plain_data(path, map_location)
    except Exception as error:  # whatever damaged bytes lead to
        if not is_trusting or not isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f'{path} cannot be read as weights alone, and nothing else is executed: '
                f'{_reason(error)}'
            ) from error
        print_log(
            f'--trust-checkpoint: {path} IS EXECUTED, as it cannot be read otherwise',
            'current',
            logging.WARNING,
        )
    try:
        return torch.load(path, map_location=map_location, weights_only=False)
    except Exception as error:
        raise ValueError(f'{path} cannot be read: {error!r}') from error


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


def _load_plain_data(path: Path, map_location: Any) -> Any:
    """torch's weights-only unpickler with a few plain classes more."""
    allow_plain_data()
    return torch.load(path, map_location=map_location, weights_only=True)


def _check_sums(path: Path) -> None:
    """Compare the file's parts with their checksums, which torch leaves out."""
    if not zipfile.is_zipfile(path):
        return  # torch's older format has none
    with zipfile.ZipFile(path) as archive:
        has_sums = any(part.CRC for part in archive.infolist())  # torch can be told to write none
        broken = archive.testzip() if has_sums else None
    if broken is not None:
        raise ValueError(f'its part {broken} is damaged')


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without torch's advice to load it unsafely."""
    asked = re.search(r'GLOBAL (\S+)', str(error))
    if asked is not None:
        return (
            f'it asks for {asked[1]}, which is no plain data. Only if you trust who made the file, '
            'load it by executing it: --trust-checkpoint'
        )
    if not isinstance(error, _TELLING):
        return f'it is truncated or no checkpoint ({type(error).__name__})'
    lines = str(error).rpartition('WeightsUnpickler error: ')[2].splitlines()
    told = [line for line in lines if line and 'weights_only' not in line]
    return told[0] if told else f'it is truncated or no checkpoint ({type(error).__name__})'


def allow_plain_data() -> None:
    """Let torch's weights-only unpickler read what mmengine and timm put beside weights.

    Also for mmengine's own reading: of its own checkpoints, 0.10.7 can read none with a torch
    that reads weights alone by default, and its successors fall back to running the pickle.
    """
    torch.serialization.add_safe_globals(_safe_globals())


def _safe_globals() -> list:
    """Plain data beside the weights: timm's arguments, mmengine's log history and schedule."""
    return [
        argparse.Namespace,
        HistoryBuffer,
        OneCycleParamScheduler,
        (_fetch_method, 'builtins.getattr'),
        *_numpy_globals(),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdFD'),
    ]


def _numpy_globals() -> list:
    """What numpy pickles arrays and scalars by, under its names before and since numpy 2."""
    # An array says by itself what makes it again, wherever this numpy keeps that.
    makers: list[Any] = [x.__reduce__()[0] for x in (np.zeros(1), np.float64(0))]
    modules = 'numpy.core.multiarray', 'numpy._core.multiarray'
    return [(maker, f'{module}.{maker.__name__}') for maker in makers for module in modules]


def _fetch_method(owner: Any, name: str) -> Any:
    """All that pickle's ``getattr`` may fetch: the methods that mmengine keeps by name."""
    allowed = {
        HistoryBuffer: ('current', 'max', 'mean', 'min'),
        OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
    }
    if not isinstance(owner, type) or name not in allowed.get(owner, ()):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not executed')
    return getattr(owner, name)
