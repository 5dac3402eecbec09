"""timm's self-attention with a Gaussian bias (arXiv 2603.04892, GAug)."""

from timm.layers import Attention
from torch import Tensor, nn

from ..ops import gaussian_attention
from ..ops.gaussian_attention import get_backend
from ..registry import MODELS, register
from .gaussian_augment import GaussianAugment

__all__ = ['GaussianAugmentedAttention']


@register(MODELS)
class GaussianAugmentedAttention(Attention):
    """timm's ``Attention`` plus GAug; the only new keys are ``gaug.*``.

    Built from a config it is a layer on tokens ``[B, N, C]`` and a grid; :meth:`adopt` turns
    the attention layer of a host into one in place.

    Args:
        dim: channels C.
        num_heads: heads; must divide ``dim``.
        grid_size: patches along (rows, columns) that the layer is built for. Any grid can be
            passed to :meth:`forward`; the variance scales with it.
        num_prefix_tokens: tokens without coordinates in front of the patches.
        backend: see :func:`locat_mm.ops.gaussian_attention`.
        kwargs: of timm's ``Attention`` (``qkv_bias``, ``qk_norm``, ``attn_drop``, ...).

    Raises:
        ValueError: if ``dim`` is not divisible by ``num_heads`` or the backend is unknown.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        grid_size: tuple[int, int] = (14, 14),
        num_prefix_tokens: int = 0,
        backend: str | None = None,
        **kwargs,
    ) -> None:
        if 'attn_head_dim' not in kwargs and dim % num_heads:
            raise ValueError(f'dim={dim} is not divisible by num_heads={num_heads}')
        super().__init__(dim, num_heads, **kwargs)
        self._add_gaug(grid_size, num_prefix_tokens, backend)

    @classmethod
    def adopt(
        cls,
        attn: nn.Module,
        grid_size: tuple[int, int],
        num_prefix_tokens: int = 0,
        backend: str | None = None,
    ) -> 'GaussianAugmentedAttention':
        """Turn a host's ``Attention`` into this class in place, keeping its weights and hooks.

        Args:
            attn: the layer, of timm's own class.
            grid_size, num_prefix_tokens, backend: as for the constructor.

        Returns:
            the same object.

        Raises:
            TypeError: if it is another kind of attention.
        """
        if type(attn) is not Attention:
            raise TypeError(f'GAug supports timm Attention, got {type(attn).__name__}')
        attn.__class__ = cls
        assert isinstance(attn, cls)
        attn._add_gaug(grid_size, num_prefix_tokens, backend)
        return attn

    def _add_gaug(self, grid_size, num_prefix_tokens: int, backend: str | None) -> None:
        if backend is not None:
            get_backend(backend)  # fail at construction, not in the first forward
        weight = self.proj.weight
        self.gaug = GaussianAugment(self.head_dim, grid_size, weight.device, weight.dtype)
        self.num_prefix_tokens = num_prefix_tokens
        self.backend = backend

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        grid_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, N = num_prefix_tokens + H·W, patches row-major.
            attn_mask: further mask or additive bias, broadcastable to ``[B, heads, N, N]``.
            is_causal: not supported.
            grid_size: patches along (rows, columns) of this input. It travels with the call,
                so a later forward on another grid cannot change an earlier graph. None: the
                grid that the layer was built for.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid, or ``is_causal`` is set.
        """
        if is_causal:
            raise ValueError('a Gaussian bias over the image has no causal order: is_causal=True')
        grid_size = self.gaug.grid_size if grid_size is None else grid_size
        batch, num_tokens, _ = x.shape
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        qkv = self.qkv(x).reshape(batch, num_tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, N, head_dim] each
        q, k = self.q_norm(q), self.k_norm(k)
        variance, alpha = self.gaug(q[:, :, self.num_prefix_tokens :], grid_size)
        x = gaussian_attention(
            q,
            k,
            v,
            variance,
            alpha,
            grid_size,
            self.num_prefix_tokens,
            eps=self.gaug.eps,
            max_sq_distance=self.gaug.max_sq_distance,
            scale=self.scale,
            attn_bias=attn_mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            backend=self.backend,
        )
        x = self.norm(x.transpose(1, 2).reshape(batch, num_tokens, self.attn_dim))
        if gate is not None:
            x = x * gate
        return self.proj_drop(self.proj(x))
