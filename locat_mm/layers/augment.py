"""The one place where GAug enters a host's attention layers."""

from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .gaussian_attention import GaussianAugmentedAttention

__all__ = ['GaussianBlock', 'augment_attention']


class GaussianBlock(Block):
    """timm's pre-norm ``Block``, which also hands the grid on to its attention layer."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        grid_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``.
            attn_mask, is_causal, grid_size: see :class:`GaussianAugmentedAttention`.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: without a grid. A host's own loop over its blocks passes none, and the
                grid that it was built for may have as many patches as the image's.
        """
        if grid_size is None:
            raise ValueError('an augmented block needs grid_size=(rows, columns) with every call')
        attended = self.attn(self.norm1(x), attn_mask, is_causal, grid_size)
        x = x + self.drop_path1(self.ls1(attended))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def augment_attention(
    host: nn.Module,
    grid_size: tuple[int, int],
    num_prefix_tokens: int = 0,
    backend: str | None = None,
) -> nn.Module:
    """Put GAug into every timm block of a host, in place.

    The host's keys stay; only ``....attn.gaug.*`` are new. Blocks then take the grid as
    ``grid_size=``.

    Args:
        host: a module with timm ``Block`` layers.
        grid_size: patches along (rows, columns) that the host is built for.
        num_prefix_tokens: tokens without coordinates in front of the patches.
        backend: see :func:`locat_mm.ops.gaussian_attention`.

    Returns:
        the host.

    Raises:
        TypeError: if a block's attention is not timm's ``Attention``, or there is no block.
    """
    blocks = [(name, m) for name, m in host.named_modules() if type(m) is Block]
    if not blocks:
        raise TypeError(f'{type(host).__name__} has no timm Block that GAug could augment')
    for name, block in blocks:
        if type(block.attn) is not Attention:
            raise TypeError(
                f'{name}.attn is a {type(block.attn).__name__}; GAug supports timm Attention'
            )
    for _, block in blocks:
        GaussianAugmentedAttention.adopt(block.attn, grid_size, num_prefix_tokens, backend)
        block.__class__ = GaussianBlock
    return host
