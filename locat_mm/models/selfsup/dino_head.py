"""DINO's projection head (Caron et al., ICCV 2021, arXiv 2104.14294)."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.layers import trunc_normal_
from torch import Tensor, nn

from ...registry import MODELS, register

__all__ = ['DINOHead']


@register(MODELS)
class DINOHead(BaseModule):
    """Three linear layers with GELU between them, L2 normalisation, and prototypes of length 1.

    No batch norm. The forward pass normalises the rows of the last layer. This is weight
    normalisation with a fixed gain of 1, so the logits are cosines.

    Args:
        in_channels: channels of the features.
        out_channels: number of prototypes.
        hidden_channels: channels of the first two layers.
        bottleneck_channels: channels of the third layer and of the prototypes.
        init_cfg: mmengine's. By default a truncated normal of std 0.02, as in DINO.

    Raises:
        ValueError: if ``out_channels`` is below 2 or another width below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 65536,
        hidden_channels: int = 2048,
        bottleneck_channels: int = 256,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if out_channels < 2:
            raise ValueError(
                f'out_channels must be at least 2, got {out_channels}: over one prototype every '
                'distribution is the same'
            )
        if min(in_channels, hidden_channels, bottleneck_channels) < 1:
            raise ValueError(
                'widths must be positive, got '
                f'{in_channels=}, {hidden_channels=}, {bottleneck_channels=}'
            )
        self.out_channels = out_channels
        self.mlp = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            nn.GELU(),
            nn.Linear(hidden_channels, hidden_channels),
            nn.GELU(),
            nn.Linear(hidden_channels, bottleneck_channels),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = nn.Linear(bottleneck_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: features ``[N, in_channels]``.

        Returns:
            cosines with the prototypes ``[N, out_channels]``.
        """
        x = F.normalize(self.mlp(x), dim=-1)
        return F.linear(x, F.normalize(self.last_layer.weight, dim=-1))
