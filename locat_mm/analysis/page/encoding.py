"""Arrays as text for a page: quantised to bytes where that is enough, compressed, base64."""

import base64
import io
import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ['Blobs', 'as_png', 'principal_directions', 'quantise_features', 'quantise_rows']

#: Numbers of components that are tried for features, and the error of a cosine that is accepted.
_RANKS = (16, 32, 64, 128, 256)
_COSINE_ERROR = 0.01
#: Patches whose cosines to all others are compared with the exact ones.
_CHECKED = 2048


class Blobs:
    """The arrays of a page, each with a number by which the page's data names it."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, array: np.ndarray) -> int:
        """Append an array, little-endian and row-major, deflated, as base64; return its number."""
        content = np.ascontiguousarray(array.astype(array.dtype.newbyteorder('<'))).tobytes()
        self.texts.append(base64.b64encode(zlib.compress(content, 6)).decode())
        return len(self.texts) - 1


def quantise_rows(weights: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights as bytes with a scale for each row: weight ≈ scale · byte².

    The square keeps small weights apart: attention is drawn on a logarithmic scale.

    Args:
        weights: ``[..., N]``, not negative.

    Returns:
        bytes ``[..., N]``, scales ``[...]`` (float32), and the largest error of a weight.
    """
    scale = weights.amax(-1).clamp(min=1e-30) / 255**2
    codes = (weights / scale[..., None]).sqrt().round().to(torch.uint8)
    error = (codes.float().square() * scale[..., None] - weights).abs().max()
    return codes.numpy(), scale.numpy().astype(np.float32), float(error)


def quantise_features(features: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Coordinates whose products are the cosines between features, as bytes.

    The features are scaled to length 1 and rotated to their principal components. As few of them
    are kept as give every cosine to within 0.01 before they are rounded, where at most 256 do.

    Args:
        features: ``[N, C]``.

    Returns:
        coordinates ``[N, R]`` (int8), scales ``[R]`` (float32), and the largest error of a cosine
        among those of 2048 patches (evenly spaced) to all others.
    """
    unit = torch.nn.functional.normalize(features, dim=-1)
    rotated = (unit.double() @ principal_directions(unit)).float()  # [N, C]
    checked = torch.linspace(0, len(unit) - 1, min(len(unit), _CHECKED)).round().long()
    exact = unit[checked] @ unit.T
    most = rotated.shape[1]
    for rank in (*(r for r in _RANKS if r < most), min(most, _RANKS[-1])):
        kept = rotated[:, :rank]
        if float((kept[checked] @ kept.T - exact).abs().max()) <= _COSINE_ERROR:
            break
    scale = kept.abs().amax(0).clamp(min=1e-30) / 127
    codes = (kept / scale).round()
    approximate = codes * scale
    error = float((approximate[checked] @ approximate.T - exact).abs().max())
    return codes.to(torch.int8).numpy(), scale.numpy().astype(np.float32), error


def principal_directions(rows: Tensor) -> Tensor:
    """The right singular vectors of ``[N, C]``, the largest first: ``[C, C]``, float64."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # where other work keeps the cores busy, several take 30 times as long
    vectors = torch.linalg.eigh(rows.double().T @ rows.double()).eigenvectors
    torch.set_num_threads(threads)
    return vectors.flip(-1)


def as_png(picture: np.ndarray) -> str:
    """A picture RGB, uint8 ``[h, w, 3]`` as the address of an image."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, 'PNG')
    return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()
