"""Read files of weights without executing a pickle."""

import argparse
import logging
import pickle
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
from torch.serialization import get_unsafe_globals_in_checkpoint

__all__ = [
    'StateDict',
    'allow_plain_data',
    'find_zip_damage',
    'read_content',
    'read_file',
    'unwrap',
]

StateDict = Mapping[str, Tensor]

_WRAPPERS = ('state_dict', 'model')
#: Errors whose text states what is wrong with a file.
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
    """Read everything in a local file, also a checkpoint's optimizer, schedule and log.

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
        damage = find_zip_damage(path) if zipfile.is_zipfile(path) else None
        if damage is not None:
            raise ValueError(damage)
        allow_plain_data()
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # damaged bytes can cause any error
        if not is_trusting or not isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f'{path} cannot be read as weights alone, and nothing else is executed: '
                f'{_reason(path, error)}'
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
    """Find the state dict in a checkpoint's content.

    Args:
        content: a state dict, possibly under the key ``state_dict`` or ``model``, as mmengine
            and timm write it.
        source: what to call it in the message.

    Returns:
        name -> tensor, without a leading ``module.``.

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


def find_zip_damage(path: str | Path) -> str | None:
    """Why a file of ``torch.save`` is not whole, or None: compares checksums, as torch does not.

    Args:
        path: the file; torch's older format, which is no zip archive, counts as damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch can be told to write no checksums.
            has_sums = any(part.CRC for part in archive.infolist())
            broken = archive.testzip() if has_sums else None
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        return f'it is truncated or no checkpoint ({error})'
    return None if broken is None else f'its part {broken} is damaged'


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, without torch's advice to load it unsafely."""
    unknown = f'it is truncated or no checkpoint ({type(error).__name__})'
    if not isinstance(error, _TELLING):
        return unknown
    lines = str(error).rpartition('WeightsUnpickler error: ')[2].splitlines()
    told = next((line for line in lines if line and 'weights_only' not in line), unknown)
    if 'GLOBAL ' not in told:
        return told
    try:
        told = f'it asks for {", ".join(sorted(get_unsafe_globals_in_checkpoint(path)))}'
    except (ValueError, pickle.UnpicklingError):  # torch's older format; torch's text has a name
        told = told.rstrip('.')
    return (
        f'{told}, which is no plain data. Only if you trust who made the file, load it by '
        'executing it: --trust-checkpoint'
    )


def allow_plain_data() -> None:
    """Let torch's weights-only unpickler read the plain data that mmengine and timm add to weights.

    This also serves mmengine's own reading. mmengine 0.10.7 cannot read its checkpoints with
    ``weights_only``, torch's default, and later versions fall back to executing the pickle.
    """
    torch.serialization.add_safe_globals(_safe_globals())


def _safe_globals() -> list:
    """timm's arguments, mmengine's log history and schedule, and numpy's arrays."""
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
    """The functions in pickles of numpy's arrays and scalars, by their names in numpy 1 and 2."""
    # Taken from arrays, because their module depends on numpy's version.
    makers: list[Any] = [x.__reduce__()[0] for x in (np.zeros(1), np.float64(0))]
    modules = 'numpy.core.multiarray', 'numpy._core.multiarray'
    return [(maker, f'{module}.{maker.__name__}') for maker in makers for module in modules]


def _fetch_method(owner: Any, name: str) -> Any:
    """A replacement for ``getattr`` in pickles that returns only mmengine's own methods."""
    allowed = {
        HistoryBuffer: ('current', 'max', 'mean', 'min'),
        OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
    }
    if not isinstance(owner, type) or name not in allowed.get(owner, ()):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not executed')
    return getattr(owner, name)
