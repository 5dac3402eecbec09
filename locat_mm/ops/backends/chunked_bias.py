"""The Gaussian bias of :mod:`.chunked`: of a chunk of queries, and the gradients of its parameters.

For one query i, with dS the gradient of the logits, the gradients are sums over keys j:

    dα_i = Σ_j dS_ij G_ij,    dv_i = -α_i / v_i² · Σ_j dS_ij G_ij E_ij    along each axis,

with ``v = variance + eps`` and E the exponent along that axis at v = 1. With a correlation ρ_i they
are of the second moments of M_ij = dS_ij G_ij over the distances, in units of √v:
``A = Σ M dy²/v_y``, ``B = Σ M dx²/v_x``, ``C = Σ M dy·dx/√(v_y v_x)``, and with s = 1/(1 - ρ²)

    dv_y = α s (A - ρC) / 2v_y,    dv_x = α s (B - ρC) / 2v_x,    dρ = α s (C - ρs(A - 2ρC + B)).
"""

import functools

import torch
from torch import Tensor

from ..gaussian_bias import (
    factors,
    rotated_terms,
    signed_distances,
    smallest_exponent,
    unit_exponents,
)
from ..geometry import Geometry

__all__ = ['chunked_bias', 'chunked_gradients']

#: Cached: on a small image their steps take as long as those on the queries.
_unit_exponents = functools.lru_cache(maxsize=8)(unit_exponents)
_signed_distances = functools.lru_cache(maxsize=8)(signed_distances)


def chunked_bias(
    variance: Tensor, alpha: Tensor, correlation: Tensor | None, geometry: Geometry
) -> 'AxisBias | RotatedBias':
    """What writes the bias of a chunk in the forward pass."""
    if correlation is None:
        return AxisBias(variance, alpha, geometry)
    return RotatedBias(variance, alpha, correlation, geometry)


def chunked_gradients(
    variance: Tensor, alpha: Tensor, correlation: Tensor | None, geometry: Geometry
) -> 'AxisGradients | RotatedGradients':
    """What adds the bias of a chunk in the backward pass, and sums up its gradients."""
    if correlation is None:
        return AxisGradients(variance, alpha, geometry)
    return RotatedGradients(variance, alpha, correlation, geometry)


class AxisBias:
    """Writes the bias of a chunk; kernels are aligned with the axes.

    Args:
        variance: ``[B, heads, H·W, 2]``.
        alpha: ``[B, heads, H·W]``.
        geometry: grid and limits.
    """

    def __init__(self, variance: Tensor, alpha: Tensor, geometry: Geometry) -> None:
        unit_exponent = _unit_exponents(geometry, variance.dtype)
        row, col = factors(variance, unit_exponent, geometry)
        self.row, self.col = row.mul_(alpha.unsqueeze(-1)).unsqueeze(-1), col.unsqueeze(-2)

    def write(self, logits: Tensor, on_grid: Tensor, chunk: tuple[slice, ...] | None) -> None:
        """Write the bias between patches.

        Args:
            logits: contiguous ``[b, heads, n, N]``.
            on_grid: the part of ``logits`` between patches, ``[b, heads, n', H, W]``. The rest
                is undefined afterwards.
            chunk: images, heads and patches of the queries; None for all.
        """
        part = (self.row, self.col) if chunk is None else (self.row[chunk], self.col[chunk])
        torch.mul(*part, out=on_grid)


class RotatedBias:
    """As :class:`AxisBias`, with a correlation ``[B, heads, H·W]``."""

    def __init__(
        self, variance: Tensor, alpha: Tensor, correlation: Tensor, geometry: Geometry
    ) -> None:
        distance = _signed_distances(geometry, variance.dtype)
        row, col, col_factor = rotated_terms(variance, correlation, distance, geometry)
        col_factor = col_factor.mul_(alpha.unsqueeze(-1)).unsqueeze(-2)
        self.terms = row.unsqueeze(-1), col.unsqueeze(-2), col_factor

    def write(self, logits: Tensor, on_grid: Tensor, chunk: tuple[slice, ...] | None) -> None:
        """See :meth:`AxisBias.write`."""
        terms = self.terms if chunk is None else [term[chunk] for term in self.terms]
        row, col, col_factor = terms
        _tilted_gaussian(row, col, on_grid, logits)
        on_grid.mul_(col_factor)


class AxisGradients:
    """The bias of a chunk and its gradients in the backward pass; images and heads are one axis.

    Args:
        variance, alpha, geometry: as for :class:`AxisBias`.
    """

    #: Tensors of the size of the chunk's logits between patches, beside the logits.
    num_buffers = 0

    def __init__(self, variance: Tensor, alpha: Tensor, geometry: Geometry) -> None:
        self.variance, self.alpha, self.geometry = variance, alpha, geometry
        self.unit_exponent = _unit_exponents(geometry, variance.dtype)
        self.row, self.col = factors(variance, self.unit_exponent, geometry)
        scaled_row = self.row * alpha[..., None]
        row, col = self.row.flatten(0, 1), self.col.flatten(0, 1)
        self.scaled_row, self.flat_col = scaled_row.flatten(0, 1)[..., None], col[..., None, :]
        # dS·gx summed over the columns of each row; α·dS·gx·gy over the rows of each column.
        self.by_row, self.by_col = torch.empty_like(row), torch.empty_like(col)

    def add(self, on_grid: Tensor, chunk: tuple[slice, slice], buffer: Tensor) -> None:
        """Add the bias between patches to logits ``[b·heads, n', H, W]``.

        Args:
            chunk: images with heads, and patches of the queries.
            buffer: memory for ``num_buffers`` tensors like ``on_grid``, kept until :meth:`reduce`.
        """
        on_grid.addcmul_(self.scaled_row[chunk], self.flat_col[chunk])

    def reduce(self, on_grid: Tensor, chunk: tuple[slice, slice], buffer: Tensor) -> None:
        """Sum the gradients of these logits over the keys; ``on_grid`` is overwritten."""
        torch.sum(on_grid.mul_(self.flat_col[chunk]), -1, out=self.by_row[chunk])
        torch.sum(on_grid.mul_(self.scaled_row[chunk]), -2, out=self.by_col[chunk])

    def gradients(self) -> tuple[Tensor, Tensor, None]:
        """Of variance, alpha and correlation, after all chunks."""
        height, width = self.geometry.grid_size
        by_row, by_col = self.by_row.view_as(self.row).mul_(self.row), self.by_col
        by_col = by_col.view_as(self.col)
        to_row, to_col = self.unit_exponent[:, 0, :height], self.unit_exponent[:, 1, :width]
        per_axis = self.alpha * (by_row * to_row).sum(-1), (by_col * to_col).sum(-1)
        v = self.variance + self.geometry.eps
        return torch.stack(per_axis, -1) / -(v**2), by_row.sum(-1), None


class RotatedGradients:
    """As :class:`AxisGradients`, with a correlation ``[B, heads, H·W]``."""

    num_buffers = 1

    def __init__(
        self, variance: Tensor, alpha: Tensor, correlation: Tensor, geometry: Geometry
    ) -> None:
        self.variance, self.alpha, self.correlation = variance, alpha, correlation
        self.geometry = geometry
        distance = _signed_distances(geometry, variance.dtype)
        self.to_row = distance[:, 0, : geometry.height]
        self.to_col = distance[:, 1, : geometry.width]
        terms = rotated_terms(variance, correlation, distance, geometry)
        row, col, col_factor = (term.flatten(0, 1) for term in terms)
        self.terms = row[..., None], col[..., None, :], col_factor[..., None, :]
        self.flat_alpha = alpha.flatten(0, 1)[..., None, None]
        # M summed over the columns of each row, over the rows of each column, and M·dx over the
        # columns of each row.
        self.by_row, self.by_col = torch.empty_like(row), torch.empty_like(col_factor)
        self.by_row_x = torch.empty_like(row)

    def add(self, on_grid: Tensor, chunk: tuple[slice, slice], buffer: Tensor) -> None:
        """See :meth:`AxisGradients.add`."""
        gaussian = buffer[: on_grid.numel()].view(on_grid.shape)
        row, col, col_factor = (term[chunk] for term in self.terms)
        _tilted_gaussian(row, col, gaussian, gaussian)
        on_grid.addcmul_(gaussian.mul_(col_factor), self.flat_alpha[chunk])

    def reduce(self, on_grid: Tensor, chunk: tuple[slice, slice], buffer: Tensor) -> None:
        """See :meth:`AxisGradients.reduce`."""
        moment = buffer[: on_grid.numel()].view(on_grid.shape).mul_(on_grid)
        torch.sum(moment, -1, out=self.by_row[chunk])
        torch.sum(moment, -2, out=self.by_col[chunk])
        torch.sum(moment.mul_(self.to_col[chunk[1], None]), -1, out=self.by_row_x[chunk])

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`AxisGradients.gradients`."""
        by_row, by_col, by_row_x = (
            x.unflatten(0, self.alpha.shape[:2]) for x in (self.by_row, self.by_col, self.by_row_x)
        )
        v_y, v_x = (self.variance + self.geometry.eps).unbind(-1)
        rho = self.correlation
        a = (by_row * self.to_row.square()).sum(-1) / v_y
        b = (by_col * self.to_col.square()).sum(-1) / v_x
        c = (by_row_x * self.to_row).sum(-1) * (v_y.rsqrt() * v_x.rsqrt())
        s = 1 / ((1 - rho) * (1 + rho))
        scaled = self.alpha * s
        per_axis = scaled * (a - rho * c) / (2 * v_y), scaled * (b - rho * c) / (2 * v_x)
        grad_correlation = scaled * (c - rho * s * (a - 2 * rho * c + b))
        return torch.stack(per_axis, -1), by_row.sum(-1), grad_correlation


def _tilted_gaussian(row: Tensor, col: Tensor, on_grid: Tensor, whole: Tensor) -> None:
    """``exp(-(row - col)²)`` into ``on_grid``.

    Args:
        whole: contiguous memory that holds ``on_grid``. Steps on it are several times faster, and
            what they do to the rest does not matter.
    """
    torch.sub(row, col, out=on_grid)
    torch.mul(whole, whole, out=whole).neg_().clamp_(min=smallest_exponent(whole.dtype)).exp_()
