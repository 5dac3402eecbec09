"""Compares results with a float64 reference, in units of what another implementation loses."""

import torch
from torch import Tensor

__all__ = ['assert_as_exact']


def assert_as_exact(
    names: tuple[str, ...],
    ours: list[Tensor],
    reference: list[Tensor],
    comparison: list[Tensor],
    dtype: torch.dtype,
) -> None:
    """Check that the largest errors are at most twice those of another implementation.

    Beyond that a few roundings of the type are allowed, where the other one happens to be exact.

    Args:
        names: of the results.
        ours: results in ``dtype``, or in float32.
        reference: the same in float64.
        comparison: those of the other implementation.
        dtype: of the inputs.
    """
    for name, a, r, c in zip(names, ours, reference, comparison, strict=True):
        assert a.shape == r.shape, name
        size = r.abs().max().item()
        error, allowed = ((x.double() - r).abs().max().item() for x in (a, c))
        slack = (8 if dtype == torch.float32 else 1) if a.dtype == dtype else 0.5
        allowed = 2 * allowed + slack * torch.finfo(dtype).eps * size
        assert error <= allowed, f'{name}: error {error:.2e}, allowed {allowed:.2e}'
