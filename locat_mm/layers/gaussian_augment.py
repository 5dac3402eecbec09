"""What GAug learns: a variance and a strength from every patch query
(arXiv 2603.04892; constants as in the authors' code, github sinahmr/LocAtViT).
"""

import math

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from ..ops import gaussian_parameters

__all__ = ['GaussianAugment']


class GaussianAugment(nn.Module):
    """Queries to the variance and strength of their Gaussian, shared by all heads of a layer.

    ``variance = c · sigmoid(W^σ q + b − log(c − 1))`` with ``c = max(grid_size)²``, so zero
    logits give 1 squared patch and the ceiling spans the grid; ``alpha = softplus(W^α q + b)``.
    On another grid than ``grid_size`` the variance scales with the shorter side. Computed in
    float32 for half-precision queries, also under autocast.

    Args:
        head_dim: channels of one head.
        grid_size: patches along (rows, columns) that the model is built for.

    Raises:
        ValueError: if a side of ``grid_size`` is below 1.
    """

    def __init__(self, head_dim: int, grid_size: tuple[int, int], device=None, dtype=None) -> None:
        super().__init__()
        if min(grid_size) < 1:
            raise ValueError(f'grid_size must be at least 1×1, got {tuple(grid_size)}')
        # Names are the authors' so that their checkpoints load; neither holds a logarithm.
        self.log_var = nn.Linear(head_dim, 2, device=device, dtype=dtype)
        self.log_alpha = nn.Linear(head_dim, 1, device=device, dtype=dtype)
        self.grid_size = (int(grid_size[0]), int(grid_size[1]))
        self.max_variance = float(max(grid_size) ** 2)
        self.var_offset = math.log(self.max_variance - 1) if self.max_variance > 2 else 0.0
        longest_sq = float((max(grid_size) - 1) ** 2)
        self.eps = 0.1
        # Their half-precision guard, kept because it changes large grids: exponents stay
        # inside what float16 can hold.
        while 0.5 * longest_sq / self.eps**2 > 32500:
            self.eps *= 2
        self.max_sq_distance = min(longest_sq, 2 * 6550.0)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at variance ≈ 1 squared patch and alpha ≈ ln 2."""
        for layer in (self.log_var, self.log_alpha):
            trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        q: Tensor,
        grid_size: tuple[int, int],
        num_prefix_tokens: int = 0,
        backend: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            q: queries ``[B, heads, N, head_dim]``, prefix tokens first, after any query norm,
                unscaled, before any rotary embedding.
            grid_size: patches along (rows, columns) of this input.
            num_prefix_tokens: tokens without coordinates, N − H·W.
            backend: see :func:`locat_mm.ops.gaussian_parameters`.

        Returns:
            variance ``[B, heads, H·W, 2]`` (rows, columns; squared patches) and alpha
            ``[B, heads, H·W]`` (logits).
        """
        max_variance = self.max_variance
        if grid_size != self.grid_size:
            max_variance *= min(grid_size) / min(self.grid_size)
        # The offset is not to be rounded to a half type.
        dtype = torch.promote_types(self.log_var.weight.dtype, torch.float32)
        weight = torch.cat([self.log_var.weight, self.log_alpha.weight]).to(dtype)
        bias = torch.cat([self.log_var.bias.to(dtype) - self.var_offset, self.log_alpha.bias])
        return gaussian_parameters(q, weight, bias, max_variance, num_prefix_tokens, backend)

    def extra_repr(self) -> str:
        return f'grid_size={self.grid_size}, eps={self.eps}'
