"""GAug in the models that this package builds: their blocks pass the grid on with every call."""

from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .hosts.search import find_attention, gaug_class_of

__all__ = ['GaussianBlock', 'GaussianEvaBlock', 'add_gaug']


class GaussianBlock(Block):
    """timm's pre-norm ``Block``, which also passes the grid to its attention layer."""

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
            attn_mask, is_causal, grid_size: see :class:`~locat_mm.layers.mixins.RotaryGAugMixin`.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: without a grid. timm's own loop over the blocks passes none. The grid that
                the layer is built for would be wrong without an error: another grid may have
                equally many patches.
        """
        _check_grid(grid_size)
        attended = self.attn(self.norm1(x), attn_mask, is_causal, grid_size)
        x = x + self.drop_path1(self.ls1(attended))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class GaussianEvaBlock(EvaBlock):
    """timm's ``EvaBlock``, which also passes the grid to its attention layer."""

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        grid_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``.
            rope, attn_mask, is_causal, grid_size: see
                :class:`~locat_mm.layers.mixins.RotaryGAugMixin`.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: without a grid, as :class:`GaussianBlock`.
        """
        _check_grid(grid_size)
        attended = self.attn(self.norm1(x), rope, attn_mask, is_causal, grid_size)
        x = x + self.drop_path1(_scale(attended, self.gamma_1))
        return x + self.drop_path2(_scale(self.mlp(self.norm2(x)), self.gamma_2))


#: Blocks that have to pass the grid on. Swin's do not: the grid of a window is the window.
_BLOCKS: dict[type[nn.Module], type[nn.Module]] = {Block: GaussianBlock, EvaBlock: GaussianEvaBlock}


def add_gaug(
    host: nn.Module,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int = 0,
    backend: str | None = None,
    kernel: str = 'axis',
) -> nn.Module:
    """Put GAug into every attention layer of a timm host, in place.

    The host's keys stay; only ``....attn.gaug.*`` are new. Blocks with global attention then
    take the grid as ``grid_size=``.

    Args:
        host: a module whose blocks hold timm's ``Attention``, ``AttentionRope`` or Swin's
            ``WindowAttention`` as ``attn``.
        grid_size: patches along (rows, columns) that the host is built for. Window attention
            has its own, the window, and takes none.
        num_prefix_tokens: tokens without coordinates in front of the patches.
        backend: see :func:`locat_mm.ops.gaussian_attention`.
        kernel: see :class:`~locat_mm.layers.GaussianAugment`.

    Returns:
        the host.

    Raises:
        TypeError: if an attention layer is of another kind or has GAug already, or there is none.
        ValueError: if global attention gets no grid, or the kernel is unknown.
    """
    layers = find_attention(host)
    for _, attn in layers:
        kind = gaug_class_of(type(attn))
        window = kind.fixed_grid(attn)
        if window is not None:
            kind.convert(attn, window, backend=backend, kernel=kernel)
        elif grid_size is None:
            raise ValueError(f'{type(attn).__name__} needs the grid_size of its patches')
        else:
            kind.convert(attn, grid_size, num_prefix_tokens, backend, kernel=kernel)
    for block in host.modules():
        block.__class__ = _BLOCKS.get(type(block), type(block))
    return host


def _check_grid(grid_size: tuple[int, int] | None) -> None:
    if grid_size is None:
        raise ValueError('a block with GAug needs grid_size=(rows, columns) with every call')


def _scale(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x
