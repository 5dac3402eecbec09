"""An exported file against the network it was made from: numbers and speed."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .network import ImageNetwork

__all__ = ['Comparison', 'compare', 'load']

#: Seconds of timed runs of one case, after which no further run starts.
_LONGEST = 5.0


class Comparison(NamedTuple):
    """One input in both.

    Attributes:
        shape: of the input.
        difference: the largest of all outputs; for class maps the share of other pixels.
        scale: the largest value of the outputs, at least 1; 1 for class maps.
        torch_seconds, file_seconds: medians of a forward pass.
    """

    shape: tuple[int, ...]
    difference: float
    scale: float
    torch_seconds: float
    file_seconds: float


def load(path: Path, file_format: str) -> Callable[[Tensor], Sequence[np.ndarray]]:
    """A file's function from an image to its outputs, on the CPU."""
    if file_format == 'torch':
        module = torch.export.load(path).module()

        def run_program(image: Tensor) -> list[np.ndarray]:
            with torch.no_grad():
                return [out.numpy() for out in module(image)]

        return run_program
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider'])
    return lambda image: session.run(None, {'image': image.numpy()})


def compare(
    network: ImageNetwork,
    run_file: Callable[[Tensor], Sequence[np.ndarray]],
    shape: tuple[int, int, int, int],
    repeats: int = 5,
) -> Comparison:
    """Run a random image batch of a shape in PyTorch and in the file.

    Args:
        network: in eval mode.
        run_file: of :func:`load`.
        shape: ``(B, channels, H, W)``.
        repeats: timed runs of each, after one that is not timed; fewer if they take more than
            five seconds.
    """
    generator = torch.Generator().manual_seed(sum(shape))
    image = torch.randn(shape, generator=generator)
    if network.with_normalization:
        image = torch.rand(shape, generator=generator) * 255
    with torch.no_grad():
        wanted = [out.numpy() for out in network(image)]
    found = run_file(image)
    if [x.shape for x in found] != [x.shape for x in wanted]:
        raise ValueError(
            f'the file gives {[x.shape for x in found]}, PyTorch {[x.shape for x in wanted]}'
        )
    with torch.no_grad():
        torch_seconds, file_seconds = _median_seconds(network, run_file, image, repeats)
    if network.output == 'argmax':
        difference, scale = float(np.mean(found[0] != wanted[0])), 1.0
    else:
        pairs = list(zip(found, wanted, strict=True))
        difference = max(float(np.abs(a - b).max()) for a, b in pairs)
        scale = max(1.0, *(float(np.abs(x).max()) for x in wanted))
    return Comparison(tuple(shape), difference, scale, torch_seconds, file_seconds)


def _median_seconds(
    first: Callable, second: Callable, image: Tensor, repeats: int
) -> tuple[float, float]:
    """Of two functions, run in turn: other work on the machine slows both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    first_start = time.perf_counter()
    for done in range(repeats):
        if done and time.perf_counter() - first_start > _LONGEST:
            break
        for run, of_run in zip((first, second), seconds, strict=True):
            start = time.perf_counter()
            run(image)
            of_run.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])
