"""GAug's parameters: a variance and a strength from every patch query.

arXiv 2603.04892; constants as in the authors' code, github sinahmr/LocAtViT. The correlation of
rotated kernels is this package's.
"""

import logging
import math
from typing import Any

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from ..helpers import check_choice
from ..ops import gaussian_parameters

__all__ = [
    'KERNELS',
    'STARTS',
    'GaussianAugment',
    'check_alpha_scale',
    'check_kernel',
    'shorter_side',
]

_logger = logging.getLogger(__name__)

#: Initial bias: ``'paper'`` about ln 2 toward the nearest patches, ``'identity'`` almost none.
STARTS = ('paper', 'identity')
#: Shapes of the Gaussian: aligned with the image's axes, or rotated by a correlation.
KERNELS = ('axis', 'rotated')
#: Initial gain of ``'identity'``: the host's outputs change by about 1e-5, and every parameter of
#: GAug gets a gradient.
_INITIAL_GAIN = 1e-6


class _Projection(nn.Module):
    """Weight and bias of a linear map, but not an ``nn.Linear``.

    Hosts initialise every ``nn.Linear`` that they find, and other tools replace them.
    """

    def __init__(self, in_features: int, out_features: int, device=None, dtype=None) -> None:
        super().__init__()
        kwargs = dict(device=device, dtype=dtype)
        self.weight = nn.Parameter(torch.empty(out_features, in_features, **kwargs))
        self.bias = nn.Parameter(torch.empty(out_features, **kwargs))

    def extra_repr(self) -> str:
        return f'in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}'


class GaussianAugment(nn.Module):
    """Queries to the variance and strength of their Gaussian, shared by all heads of a layer.

    ``variance = c · sigmoid(W^σ q + b − log(c − 1))`` with ``c = max(grid_size)²``, so zero
    logits give 1 squared patch and the ceiling spans the grid; ``alpha = softplus(W^α q + b)``.
    On another grid than ``grid_size`` the variance scales with the shorter side. Computed in
    float32 for half-precision queries, also under autocast.

    A rotated kernel has also a correlation ``ρ = 0.95 · tanh(W^ρ q + b)`` between the distances
    along rows and along columns. W^ρ and b start at 0, so it starts aligned with the axes. Weights
    without a correlation load into it: the correlation becomes 0, which is logged. On another grid
    it does not change.

    Args:
        head_dim: channels of one head.
        grid_size: patches along (rows, columns) that the model is built for.
        start: ``'paper'``, or ``'identity'`` for a host that is trained: alpha is then
            ``gain · softplus(...)`` with a learned gain that starts near 0.
        kernel: ``'axis'`` or ``'rotated'``.

    Attributes:
        alpha_scale: factor of alpha, 1 in training; not in the state dict.

    Raises:
        ValueError: if a side of ``grid_size`` is below 1, or ``start`` or ``kernel`` is unknown.
    """

    alpha_scale: float = 1.0

    def __init__(
        self,
        head_dim: int,
        grid_size: tuple[int, int],
        device=None,
        dtype=None,
        start: str = 'paper',
        kernel: str = 'axis',
    ) -> None:
        super().__init__()
        check_choice('start', start, STARTS)
        check_kernel(kernel)
        if min(grid_size) < 1:
            raise ValueError(f'grid_size must be at least 1×1, got {tuple(grid_size)}')
        # The names are the authors', so that their checkpoints load. Neither is a logarithm.
        self.log_var = _Projection(head_dim, 2, device, dtype)
        self.log_alpha = _Projection(head_dim, 1, device, dtype)
        rotated = kernel == 'rotated'
        self.correlation = _Projection(head_dim, 1, device, dtype) if rotated else None
        gain = torch.empty(1, device=device, dtype=dtype) if start == 'identity' else None
        self.gain = None if gain is None else nn.Parameter(gain)
        self.grid_size = (int(grid_size[0]), int(grid_size[1]))
        self.max_variance = float(max(grid_size) ** 2)
        self.var_offset = math.log(self.max_variance - 1) if self.max_variance > 2 else 0.0
        longest_sq = float((max(grid_size) - 1) ** 2)
        self.eps = 0.1
        # The authors' rule for half precision: exponents stay within float16. It is kept because
        # it changes the numbers on large grids.
        while 0.5 * longest_sq / self.eps**2 > 32500:
            self.eps *= 2
        self.max_sq_distance = min(longest_sq, 2 * 6550.0)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at variance ≈ 1 squared patch, alpha ≈ ln 2, or ≈ 0 with a gain, correlation 0."""
        for layer in (self.log_var, self.log_alpha):
            trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        if self.correlation is not None:
            nn.init.zeros_(self.correlation.weight)
            nn.init.zeros_(self.correlation.bias)
        if self.gain is not None:
            nn.init.constant_(self.gain, _INITIAL_GAIN)

    def forward(
        self,
        q: Tensor,
        grid_size: tuple[int, int],
        num_prefix_tokens: int = 0,
        backend: str | None = None,
    ) -> tuple[Tensor, ...]:
        """
        Args:
            q: queries ``[B, heads, N, head_dim]``, prefix tokens first, after any query norm,
                unscaled, before any rotary embedding.
            grid_size: patches along (rows, columns) of this input.
            num_prefix_tokens: tokens without coordinates, N − H·W.
            backend: see :func:`locat_mm.ops.gaussian_parameters`.

        Returns:
            variance ``[B, heads, H·W, 2]`` (rows, columns; squared patches), alpha
            ``[B, heads, H·W]`` (logits) and, of a rotated kernel, correlation ``[B, heads, H·W]``.
        """
        max_variance = self.max_variance * (shorter_side(grid_size) / min(self.grid_size))
        # In float32: a half type would round the offset.
        dtype = torch.promote_types(self.log_var.weight.dtype, torch.float32)
        rest = [self.log_alpha] if self.correlation is None else [self.log_alpha, self.correlation]
        weight = torch.cat([self.log_var.weight, *(layer.weight for layer in rest)]).to(dtype)
        offset = self.log_var.bias.to(dtype) - self.var_offset
        bias = torch.cat([offset, *(layer.bias for layer in rest)])
        variance, alpha, *correlation = gaussian_parameters(
            q, weight, bias, max_variance, num_prefix_tokens, backend
        )
        if self.gain is not None:
            alpha = alpha * self.gain.to(alpha.dtype)
        alpha = alpha if self.alpha_scale == 1 else alpha * self.alpha_scale
        return variance, alpha, *correlation

    @property
    def kernel(self) -> str:
        return 'axis' if self.correlation is None else 'rotated'

    def extra_repr(self) -> str:
        scale = '' if self.alpha_scale == 1 else f', alpha_scale={self.alpha_scale:g}'
        return f'grid_size={self.grid_size}, eps={self.eps}, kernel={self.kernel!r}{scale}'

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        given = state_dict.get(f'{prefix}log_var.weight')
        if self.correlation is not None and given is not None:
            own = self.correlation.state_dict(prefix=f'{prefix}correlation.')
            if own.keys().isdisjoint(state_dict):
                _logger.info('%scorrelation is not among the weights: it is set to 0', prefix)
                # The dict is load_state_dict's own copy, of which the parts are loaded next.
                state_dict.update(
                    (k, torch.zeros_like(x, device=given.device)) for k, x in own.items()
                )
        super()._load_from_state_dict(state_dict, prefix, *rest)


def check_kernel(kernel: str, gaug: bool = True) -> None:
    """Check the name of a kernel; only ``'axis'``, the default, goes with a model without GAug.

    Raises:
        ValueError: if it is unknown, or needs GAug.
    """
    check_choice('kernel', kernel, KERNELS)
    if kernel != 'axis' and not gaug:
        raise ValueError(f'{kernel=} needs gaug=True')


def shorter_side(grid_size: tuple[int, int]) -> Any:
    """The smaller number of patches of (rows, columns).

    No branch on the grid, and no min() of it: both would fix an exported model to one size. Under
    torch.jit.trace, sizes are tensors, which sym_min refuses. Export keeps sizes open only through
    torch's own minimum, which torch.compile lacks.
    """
    keeps_open = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
    return (torch.sym_min if keeps_open else min)(*grid_size)


def check_alpha_scale(alpha_scale: float) -> None:
    """Raise a ValueError unless the factor of alpha is finite and not negative."""
    if not 0 <= alpha_scale < math.inf:
        raise ValueError(f'alpha_scale must be finite and not negative, got {alpha_scale}')
