"""A network into a file: ONNX or ``torch.export``, with open sizes."""

import errno
import importlib
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram

from .hosts import any_batch_size, any_image_size
from .network import ImageNetwork, has_windows, other_sizes, size_multiple

__all__ = ['OPSET', 'SUFFIXES', 'check_output_file', 'export', 'require_onnx', 'trace']

#: Of the ONNX files: the first that resizes with antialiasing, as position embeddings need.
OPSET = 18
SUFFIXES = dict(onnx='.onnx', torch='.pt2')
#: An ONNX file cannot hold more; its weights go into a second file then.
_MAX_ONNX_BYTES = 2**31 - 2**24
#: Patches along a side. A side of one patch would be a size of its own for ``torch.export``.
_MIN_PATCHES, _MAX_PATCHES = 2, 1024


def require_onnx() -> None:
    """Check that the packages for ONNX are installed.

    Raises:
        ModuleNotFoundError: with the command that installs them.
    """
    missing = []
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            missing.append(name)
    if missing:
        raise ModuleNotFoundError(
            f'ONNX export needs {", ".join(missing)}: pip install "locat_mm[deploy]", or '
            f'pip install {" ".join(missing)}'
        )


def check_output_file(path: str | Path, file_format: str, force: bool = False) -> Path:
    """Check that a file can be written, before any work is done. Nothing is made.

    Raises:
        ValueError: if the suffix is not that of the format.
        FileExistsError: if it exists, unless ``force``.
        OSError: if its folder cannot be written to.
    """
    path = Path(path)
    if path.suffix != SUFFIXES[file_format]:
        raise ValueError(f'{path} must end in {SUFFIXES[file_format]}')
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, 'cannot be written: it is a folder', str(path))
    if path.exists() and not force:
        raise FileExistsError(f'{path} exists: give another name, or --force to overwrite it')
    above = next(folder for folder in path.absolute().parents if folder.exists())
    try:  # permissions say nothing to root, and nothing of read-only file systems
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise OSError(
            f'{path} cannot be written: {above} is no folder that can be written to ({error})'
        ) from error
    return path


def trace(
    network: ImageNetwork, size: tuple[int, int], static: bool = False, batch_size: int = 2
) -> ExportedProgram:
    """Export to a graph of torch operations, with the batch size left open.

    Args:
        network: in eval mode.
        size: pixels (rows, columns) of the example, multiples of the patch unless ``static``.
        static: fix height and width to ``size``. Otherwise they are any multiples of the patch,
            from 2 to 1024 patches.
        batch_size: of the example.

    Raises:
        ValueError: if the size does not fit, or height and width cannot stay open.
    """
    multiple = size_multiple(network)
    axes: dict[int, Any] = {0: Dim('batch')}
    if not static:
        if any(side % multiple or side < _MIN_PATCHES * multiple for side in size):
            raise ValueError(
                f'height and width must be multiples of {multiple} pixels and at least '
                f'{_MIN_PATCHES * multiple}, got {size[0]}×{size[1]}'
            )
        if has_windows(network):
            raise ValueError(
                'the backbone attends within windows, and their number and masks depend on the '
                'image: height and width cannot stay open. Fix them: --size HEIGHT WIDTH --static'
            )
        for axis, name in ((2, 'rows'), (3, 'columns')):
            patches = Dim(name, min=_MIN_PATCHES, max=_MAX_PATCHES)
            axes[axis] = patches if multiple == 1 else multiple * patches
    channels = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d)).in_channels
    image = torch.zeros(batch_size, channels, *size)
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(any_batch_size())
        if not static:
            stack.enter_context(any_image_size(network))
        try:
            program = torch.export.export(network, (image,), dynamic_shapes=(axes,), strict=False)
        except UserError as error:
            raise ValueError(_not_open(static, error)) from error
    # What torch.export takes for a condition on sizes shows only when the program runs.
    module = program.module()
    for rows, columns in [size] if static else other_sizes(network, size):
        for batch in (1, batch_size + 1):
            try:
                with torch.no_grad():
                    module(torch.zeros(batch, channels, rows, columns))
            except AssertionError as error:
                raise ValueError(_not_open(static, error)) from error
    return program


def _not_open(static: bool, error: Exception) -> str:
    what = 'the batch size' if static else 'batch size, height and width'
    hint = '' if static else ' Fix height and width: --size HEIGHT WIDTH --static'
    return f'{what} cannot stay open for this model.{hint}\n{error}'


def export(
    program: ExportedProgram,
    file_format: str,
    path: Path,
    output_names: list[str],
    metadata: dict[str, str],
) -> None:
    """Write an exported program.

    Args:
        program: of :func:`trace`.
        file_format: ``'onnx'`` or ``'torch'``.
        path: the file. ONNX with more than 2 GiB of weights has ``NAME.data`` beside it.
        output_names: for ONNX.
        metadata: stored in the file: ONNX's ``metadata_props``, or ``metadata.json`` among the
            extra files of ``torch.export``.
    """
    if file_format == 'torch':
        extra_files = {'metadata.json': json.dumps(metadata, indent=2)}
        torch.export.save(program, path, extra_files=extra_files)
        return
    with torch.no_grad():
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=['image'],
            output_names=output_names,
            verbose=False,
        )
    assert onnx_program is not None
    onnx_program.model.metadata_props.update(metadata)
    tensors: list[Tensor] = [*program.state_dict.values(), *program.constants.values()]
    size = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
    onnx_program.save(path, external_data=size > _MAX_ONNX_BYTES)
