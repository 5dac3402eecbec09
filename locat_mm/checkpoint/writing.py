"""Write files completely or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.fileio import LocalBackend
from safetensors.torch import save_file

from .reading import StateDict

__all__ = ['AtomicBackend', 'check_target', 'write_beside', 'write_state_dict']

_SUFFIXES = ('.safetensors', '.pth', '.pt')
#: Errors of file systems that cannot sync a folder, such as some network file systems.
_NO_FOLDER_SYNC = (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Context: write to a temporary file in the same folder, which then replaces the file.

    After an error or a kill the earlier file is still there. The folder is created if necessary.

    Args:
        path: the file.

    Yields:
        the temporary name to write to: hidden, ending in ``.tmp``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield beside
        with open(beside, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # without it a power failure can lose the new name
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(folder)


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, but each is written completely or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with write_beside(filepath) as beside:
            beside.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


def check_target(path: str | Path, force: bool = False) -> Path:
    """Check that a file can be written there, before any work is done.

    Raises:
        FileExistsError: if it exists, unless ``force``.
        ValueError: if the suffix is unknown.
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
        path: ``.safetensors`` for the tensors only; ``.pth`` or ``.pt`` for
            ``dict(state_dict=..., meta={})``, which timm and OpenMMLab read.
        force: overwrite an existing file.

    Raises:
        FileExistsError, ValueError: as :func:`check_target`.
    """
    path = check_target(path, force)
    # safetensors refuses tensors that share memory or are not contiguous.
    tensors = {k: v.clone(memory_format=torch.contiguous_format) for k, v in state.items()}
    with write_beside(path) as beside:
        if path.suffix == '.safetensors':
            save_file(tensors, beside, metadata={'format': 'pt'})
        else:
            torch.save(dict(state_dict=tensors, meta={}), beside)
