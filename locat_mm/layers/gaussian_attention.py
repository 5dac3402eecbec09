"""timm's attention layers with a Gaussian bias (arXiv 2603.04892, GAug)."""

from typing import Any, ClassVar

from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, cat, nn

from ..ops import gaussian_attention
from ..ops.gaussian_attention import get_backend
from ..registry import MODELS, register
from .gaussian_augment import GaussianAugment
from .image_grid import ImageGrid

__all__ = [
    'GaussianAugmentation',
    'GaussianAugmentedAttention',
    'GaussianAugmentedRopeAttention',
    'GaussianAugmentedWindowAttention',
    'RotaryAugmentation',
    'WindowAugmentation',
]


class GaussianAugmentation(nn.Module):
    """What the layers share: GAug's parameters, and entering a host's layer in place.

    A layer is this class before the host's, with a forward of its own.
    """

    HOST: ClassVar[type[nn.Module]]
    #: To a host of somebody else's, by :func:`locat_mm.attach`.
    attached = False

    @classmethod
    def adopt(
        cls,
        attn: nn.Module,
        grid_size: tuple[int, int],
        num_prefix_tokens: int = 0,
        backend: str | None = None,
        start: str = 'paper',
        image_grid: ImageGrid | None = None,
    ) -> Any:
        """Turn a host's attention into this class in place, keeping its weights and hooks.

        Args:
            attn: the layer, of the host's own class.
            grid_size, num_prefix_tokens, backend: as for the constructor.
            start: see :class:`GaussianAugment`.
            image_grid: where to look for the grid of an image if the call does not say.

        Returns:
            the same object.

        Raises:
            TypeError: if it is another kind of attention.
            ValueError: if it is a variant that is not supported.
        """
        if type(attn) is not cls.HOST:
            raise TypeError(f'GAug supports {cls.HOST.__name__}, got {type(attn).__name__}')
        cls.check(attn)
        adopted: Any = attn
        before = set(adopted.__dict__)
        adopted.__class__ = cls
        adopted._add_gaug(grid_size, num_prefix_tokens, backend, start, image_grid)
        adopted._added = {*adopted.__dict__} - before | {'_added', 'gaug'}
        return adopted

    def release(self: Any) -> None:
        """Undo :meth:`adopt`."""
        for name in self._added:
            delattr(self, name)
        self.__dict__.pop('attached', None)
        self.__class__ = self.HOST

    @classmethod
    def check(cls, attn: Any) -> None:
        """Raise a ValueError for a variant of the host's layer that is not supported."""

    @classmethod
    def fixed_grid(cls, attn: Any) -> tuple[int, int] | None:
        """The grid that a host's layer always attends within: a window; None without one."""
        return None

    def _add_gaug(
        self: Any,
        grid_size: tuple[int, int],
        num_prefix_tokens: int,
        backend: str | None,
        start: str = 'paper',
        image_grid: ImageGrid | None = None,
    ) -> None:
        if backend is not None:
            get_backend(backend)  # fail at construction, not in the first forward
        host = list(self.parameters())
        weight = host[0]
        self.gaug = GaussianAugment(self._head_dim(), grid_size, weight.device, weight.dtype, start)
        self.gaug.requires_grad_(any(p.requires_grad for p in host))  # as frozen as its layer
        self.num_prefix_tokens = num_prefix_tokens
        self.backend = backend
        self.image_grid = image_grid

    def _head_dim(self: Any) -> int:
        return self.qkv.out_features // (3 * self.num_heads)

    def _grid(self: Any, x: Tensor, grid_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """The grid of tokens ``[B, N, C]``: the call's, the image's, or what it was built for."""
        if grid_size is not None:
            return grid_size
        if self.image_grid is not None:
            return self.image_grid.of(x.shape[1] - self.num_prefix_tokens)
        return self.gaug.grid_size

    def _split_heads(self: Any, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, N, 3·heads·head_dim]`` to q, k and v ``[B, heads, N, head_dim]``."""
        qkv = qkv.view(*qkv.shape[:2], 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _attend(
        self: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        grid_size: tuple[int, int],
        attn_bias: Tensor | None = None,
        gaussian: tuple[Tensor, Tensor] | None = None,
        scale: float | None = None,
        dropout_p: float | None = None,
    ) -> Tensor:
        """Attention with heads merged, ``[B, N, heads·head_dim]``.

        Args:
            q, k, v: ``[B, heads, N, head_dim]``.
            grid_size: patches along (rows, columns).
            attn_bias: see :func:`locat_mm.ops.gaussian_attention`.
            gaussian: what GAug reads from the queries, if these are not q (rotary embedding).
            scale, dropout_p: the host's, if not ``self.scale`` and ``self.attn_drop.p``.
        """
        if gaussian is None:
            gaussian = self.gaug(q, grid_size, self.num_prefix_tokens, self.backend)
        variance, alpha = gaussian
        if dropout_p is None:
            dropout_p = self.attn_drop.p
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
            scale=self.scale if scale is None else scale,
            attn_bias=attn_bias,
            dropout_p=dropout_p if self.training else 0.0,
            backend=self.backend,
            check_values=False,  # never negative, and eps keeps 0 from hurting
        )
        return x.transpose(1, 2).flatten(2)


class RotaryAugmentation(GaussianAugmentation):
    """timm's global attention over prefix tokens and patches, rotary or not."""

    def forward(
        self: Any,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        grid_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, N = num_prefix_tokens + H·W, patches row-major.
            rope: sine and cosine of every patch, broadcastable to
                ``[B, heads, H·W, 2·head_dim]``.
            attn_mask, is_causal, grid_size: see :class:`GaussianAugmentedAttention`.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid, or ``is_causal`` is set.
        """
        if is_causal:
            raise ValueError('a Gaussian bias over the image has no causal order: is_causal=True')
        grid_size = self._grid(x, grid_size)
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        q, k, v = self._split_heads(self._qkv(x))
        q, k = self.q_norm(q), self.k_norm(k)
        gaussian = self.gaug(q, grid_size, self.num_prefix_tokens, self.backend)
        if rope is not None:
            q, k = self._rotate(q, rope).type_as(v), self._rotate(k, rope).type_as(v)
        x = self.norm(self._attend(q, k, v, grid_size, attn_mask, gaussian))
        if gate is not None:
            x = x * gate
        return self.proj_drop(self.proj(x))

    def _qkv(self: Any, x: Tensor) -> Tensor:
        return self.qkv(x)

    def _rotate(self: Any, x: Tensor, rope: Tensor) -> Tensor:
        prefix, patches = x.tensor_split([self.num_prefix_tokens], dim=2)
        patches = apply_rot_embed_cat(patches, rope, half=self.rotate_half)
        return cat([prefix, patches], dim=2)


@register(MODELS)
class GaussianAugmentedAttention(RotaryAugmentation, Attention):
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

    HOST = Attention

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
        Attention.__init__(self, dim, num_heads, **kwargs)
        self._add_gaug(grid_size, num_prefix_tokens, backend)

    def forward(  # type: ignore[override]  # the host's arguments, which have no rope
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
        return super().forward(x, None, attn_mask, is_causal, grid_size)


class GaussianAugmentedRopeAttention(RotaryAugmentation, AttentionRope):
    """timm's ``AttentionRope`` plus GAug, which reads the query before it is rotated.

    Made by :meth:`adopt`; the only new keys are ``gaug.*``.
    """

    HOST = AttentionRope

    @classmethod
    def check(cls, attn: Any) -> None:
        if attn.qkv is None:
            raise ValueError('GAug supports AttentionRope with qkv_fused=True')


class WindowAugmentation(GaussianAugmentation):
    """Attention in windows, with a relative position bias; the grid is the window."""

    @classmethod
    def fixed_grid(cls, attn: Any) -> tuple[int, int]:
        return attn.window_size

    def forward(self: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: tokens of windows ``[B·W, N, C]``, the windows of an image together.
            mask: additive, between the N tokens of each window, ``[W, N, N]``.

        Returns:
            tokens ``[B·W, N, C]``.
        """
        q, k, v = self._split_heads(self.qkv(x))
        bias = self._get_rel_pos_bias()  # [1, heads, N, N]
        if mask is not None:
            bias = bias + mask[:, None]  # [W, heads, N, N]
        return self.proj_drop(self.proj(self._attend(q, k, v, self.window_size, bias)))


class GaussianAugmentedWindowAttention(WindowAugmentation, WindowAttention):
    """Swin's window attention plus GAug.

    Made by :meth:`adopt`; the only new keys are ``gaug.*``. The Gaussian bias adds to the
    relative position bias.
    """

    HOST = WindowAttention
