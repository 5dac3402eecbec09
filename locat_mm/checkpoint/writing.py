"""Files of weights, written whole or not at all."""

import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from .reading import StateDict

__all__ = ['check_target', 'write_state_dict']

_SUFFIXES = ('.safetensors', '.pth', '.pt')


def check_target(path: str | Path, force: bool = False) -> Path:
    """Check that a file can be written there, before any work is done.

    Raises:
        FileExistsError: if it exists, unless ``force``.
        ValueError: if the suffix names no known format.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f'{path} must end in {", ".join(_SUFFIXES)}')
    if path.exists() and not force:
        raise FileExistsError(f'{path} exists: give another name, or --force to overwrite it')
    return path


def write_state_dict(state: StateDict, path: str | Path, force: bool = False) -> None:
    """Write weights.

    Args:
        state: name -> tensor.
        path: ``.safetensors`` for the tensors alone; ``.pth`` or ``.pt`` for
            ``dict(state_dict=..., meta={})``, which timm and OpenMMLab read.
        force: overwrite an existing file.

    Raises:
        FileExistsError, ValueError: as :func:`check_target`.
    """
    path = check_target(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory or are not contiguous.
    tensors = {k: v.clone(memory_format=torch.contiguous_format) for k, v in state.items()}
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        if path.suffix == '.safetensors':
            save_file(tensors, unfinished, metadata={'format': 'pt'})
        else:
            torch.save(dict(state_dict=tensors, meta={}), unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
