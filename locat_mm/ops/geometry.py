"""Where tokens lie on an image, and how distances between them are measured."""

from math import inf
from typing import NamedTuple

from torch import Tensor

__all__ = ['Geometry', 'check_shapes']


class Geometry(NamedTuple):
    """What every backend of the attention has to know, besides the tensors.

    Attributes:
        height, width: patches along rows and columns of the image. Patches are row-major.
        num_prefix_tokens: tokens without coordinates, in front of the patches.
        eps: added to the variance, in squared patches.
        max_sq_distance: upper limit of squared distances along one axis, in squared patches.
    """

    height: int
    width: int
    num_prefix_tokens: int = 0
    eps: float = 0.1
    max_sq_distance: float = inf

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches along (rows, columns)."""
        return self.height, self.width

    @property
    def num_patches(self) -> int:
        return self.height * self.width


def check_shapes(
    variance: Tensor,
    alpha: Tensor,
    geometry: Geometry,
    leading: tuple[int, ...] | None = None,
    correlation: Tensor | None = None,
) -> None:
    """Check that variance is ``[*leading, H·W, 2]``, alpha and correlation ``[*leading, H·W]``.

    Args:
        leading: the first axes; by default those of ``variance``.
        correlation: None for kernels that are aligned with the axes.

    Raises:
        ValueError: if they are not.
    """
    leading = variance.shape[:-2] if leading is None else leading
    if variance.shape != (*leading, geometry.num_patches, 2):
        axes = ', '.join(map(str, leading))
        raise ValueError(
            f'variance must be of shape ({axes}, {geometry.num_patches}, 2) for a grid of '
            f'{geometry.height}×{geometry.width} patches, got {tuple(variance.shape)}'
        )
    for name, x in (('alpha', alpha), ('correlation', correlation)):
        if x is not None and x.shape != variance.shape[:-1]:
            raise ValueError(
                f'{name} must have the shape of variance without its last axis, '
                f'{tuple(variance.shape[:-1])}, got {tuple(x.shape)}'
            )
