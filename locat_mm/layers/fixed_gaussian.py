"""A constant Gaussian in place of GAug: locality without training.

The idea is NACLIP's (Hajimiri et al., "Pay Attention to Your Neighbours", WACV 2025), which adds a
Gaussian of the distance to the attention logits of CLIP's last block.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..helpers import check_choice
from .gaussian_augment import shorter_side

__all__ = ['UNITS', 'Constants', 'FixedGaussian', 'chosen_layers', 'constants_of']

#: What the variance is measured in on another grid than the model's: see :class:`FixedGaussian`.
UNITS = ('patches', 'image')


class Constants(NamedTuple):
    """The Gaussian of one layer; see :class:`FixedGaussian`."""

    variance: float
    alpha: float
    units: str = 'patches'


class FixedGaussian(nn.Module):
    """One variance and one strength for all queries, with the interface of ``GaussianAugment``.

    A query's bias toward the patch at distance (dy, dx) is
    ``alpha · exp(−(dy² + dx²) / (2 (variance + eps)))`` with ``eps = 0.1``: the defaults of
    :func:`locat_mm.ops.gaussian_bias`. Distances have no upper limit. It has no parameters, and
    its buffers are not in the state dict.

    Args:
        grid_size: patches along (rows, columns) that the model is built for.
        variance: squared patches; positive.
        alpha: logits. A negative one moves attention away from near patches.
        units: on another grid, ``'patches'`` keeps the variance; ``'image'`` multiplies it by the
            squared ratio of the grids' shorter sides, so the Gaussian covers the same part of the
            image. A window is a grid of its own, of a size that does not change.

    Raises:
        ValueError: if the variance is not positive, a number is not finite, or ``units`` is
            unknown.
    """

    eps = 0.1
    max_sq_distance = math.inf

    variance: Tensor
    alpha: Tensor

    def __init__(
        self,
        grid_size: tuple[int, int],
        variance: float,
        alpha: float,
        units: str = 'patches',
        device=None,
    ) -> None:
        super().__init__()
        _check(Constants(variance, alpha, units))
        self.grid_size = (int(grid_size[0]), int(grid_size[1]))
        self.units = units
        for name, value in (('variance', variance), ('alpha', alpha)):
            number = torch.tensor(float(value), dtype=torch.float32, device=device)
            self.register_buffer(name, number, persistent=False)

    def forward(
        self,
        q: Tensor,
        grid_size: tuple[int, int],
        num_prefix_tokens: int = 0,
        backend: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            q: queries ``[B, heads, N, head_dim]``, of which only sizes, dtype and device count.
            grid_size: patches along (rows, columns) of this input.
            num_prefix_tokens, backend: not needed; the arguments of ``GaussianAugment``.

        Returns:
            variance ``[B, heads, H·W, 2]`` (squared patches) and alpha ``[B, heads, H·W]``
            (logits), expanded from one number each.
        """
        dtype = torch.promote_types(q.dtype, torch.float32)
        variance, alpha = self.variance.to(dtype), self.alpha.to(dtype)
        if self.units == 'image':
            variance = variance * (shorter_side(grid_size) / min(self.grid_size)) ** 2
        shape = (q.shape[0], q.shape[1], grid_size[0] * grid_size[1])
        return variance.expand(*shape, 2), alpha.expand(shape)

    def extra_repr(self) -> str:
        return (
            f'variance={float(self.variance):g}, alpha={float(self.alpha):g}, units={self.units!r}'
        )


def constants_of(
    variance: float | Sequence[float] | None,
    alpha: float | Sequence[float] | None,
    units: str,
    count: int,
) -> list[Constants]:
    """The constants of every layer.

    Args:
        variance, alpha: one number for all layers, or one per layer.
        units: see :class:`FixedGaussian`.
        count: of the layers.

    Raises:
        ValueError: if a number is missing, out of range, or there is another count of them.
    """
    columns = []
    for name, value in (('variance', variance), ('alpha', alpha)):
        if value is None:
            raise ValueError(f"start='fixed' needs variance and alpha, got {name}=None")
        numbers = [value] * count if isinstance(value, (int, float)) else [*value]
        if len(numbers) != count:
            raise ValueError(
                f'{name} must be one number or one per layer: {len(numbers)} for {count} layers'
            )
        columns.append([float(number) for number in numbers])
    constants = [Constants(v, a, units) for v, a in zip(*columns, strict=True)]
    for of_layer in constants:
        _check(of_layer)
    return constants


def _check(constants: Constants) -> None:
    check_choice('units', constants.units, UNITS)
    if not 0 < constants.variance < math.inf:
        raise ValueError(f'variance must be positive and finite, got {constants.variance}')
    if not math.isfinite(constants.alpha):
        raise ValueError(f'alpha must be finite, got {constants.alpha}')


def chosen_layers(layers: int | Sequence[int] | slice | None, count: int) -> list[int]:
    """The numbers of the chosen layers, from 0.

    Args:
        layers: an index, several, or a slice; negative ones count from the end. None: all layers.
        count: of all layers.

    Raises:
        ValueError: if an index or a limit of the slice is out of range, an index is given twice,
            or no layer is chosen.
        TypeError: if it is none of these.
    """
    if layers is None:
        return list(range(count))
    if isinstance(layers, slice):
        limits = [limit for limit in (layers.start, layers.stop) if limit is not None]
        if any(not -count <= limit <= count for limit in limits):
            raise ValueError(f'layers={layers} is out of range: the model has {count}')
        chosen = list(range(count))[layers]
    else:
        indices = [layers] if isinstance(layers, int) else list(layers)
        if any(not isinstance(i, int) or isinstance(i, bool) for i in indices):
            raise TypeError(f'layers must be indices or a slice, got {layers!r}')
        if any(not -count <= i < count for i in indices):
            raise ValueError(f'layers={layers!r} is out of range: the model has {count}')
        chosen = [i % count for i in indices]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f'layers={layers!r} names a layer twice: the model has {count}')
    if not chosen:
        raise ValueError(f'layers={layers!r} chooses none of the {count} layers')
    return chosen
