"""GAug in an attention layer: what the layers of all host libraries share.

A layer with GAug is one of these mixins in front of the host's own class, so weights and keys stay.
The layers are in :mod:`.hosts`.
"""

from typing import Any, ClassVar

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops import gaussian_attention
from ..ops.gaussian_attention import get_backend
from .fixed_gaussian import Constants, FixedGaussian
from .gaussian_augment import GaussianAugment
from .image_grid import ImageGrid

__all__ = ['BEiTGAugMixin', 'GAugMixin', 'MMWindowGAugMixin', 'RotaryGAugMixin', 'WindowGAugMixin']


class GAugMixin(nn.Module):
    """Adds GAug to a host's attention layer, and removes it again.

    Attributes:
        gaug: variance and strength of every query.
        num_prefix_tokens: tokens without coordinates in front of the patches.
        backend: see :func:`locat_mm.ops.gaussian_attention`.
        image_grid: where the grid of the current image is found if the call does not give it.
        attached: True after :func:`locat_mm.attach`; False in a model that is built with GAug.
    """

    HOST: ClassVar[type[nn.Module]]
    attached: bool = False

    gaug: GaussianAugment | FixedGaussian
    num_prefix_tokens: int
    backend: str | None
    image_grid: ImageGrid | None
    # Of the host:
    num_heads: int
    scale: float
    qkv: Any
    proj: Any
    proj_drop: Any
    attn_drop: Any

    @classmethod
    def convert(
        cls,
        attn: nn.Module,
        grid_size: tuple[int, int],
        num_prefix_tokens: int = 0,
        backend: str | None = None,
        start: str = 'paper',
        image_grid: ImageGrid | None = None,
        constants: Constants | None = None,
        kernel: str = 'axis',
    ) -> 'GAugMixin':
        """Turn a host's attention layer into this class in place, keeping its weights and hooks.

        Args:
            attn: the layer, of the host's own class.
            grid_size, num_prefix_tokens, backend: as for the constructor.
            start: see :class:`GaussianAugment`.
            image_grid: where to find the grid of an image if the call does not give it.
            constants: of a :class:`FixedGaussian` in place of a ``GaussianAugment``.
            kernel: see :class:`GaussianAugment`.

        Returns:
            the same object.

        Raises:
            TypeError: if it is another kind of attention.
            ValueError: if it is a variant that is not supported.
        """
        if type(attn) is not cls.HOST:
            raise TypeError(f'GAug supports {cls.HOST.__name__}, got {type(attn).__name__}')
        cls.check(attn)
        layer: Any = attn
        before = set(layer.__dict__)
        layer.__class__ = cls
        layer._add_gaug(grid_size, num_prefix_tokens, backend, start, image_grid, constants, kernel)
        layer._added = {*layer.__dict__} - before | {'_added', 'gaug'}
        return layer

    def revert(self: Any) -> None:
        """Undo :meth:`convert`."""
        for name in self._added:
            delattr(self, name)
        self.__dict__.pop('attached', None)
        self.__class__ = self.HOST

    @classmethod
    def check(cls, attn: Any) -> None:
        """Raise a ValueError for a variant of the host's layer that is not supported."""

    @classmethod
    def fixed_grid(cls, attn: Any) -> tuple[int, int] | None:
        """The window (rows, columns) that a host's layer attends within; None without windows."""
        return None

    def _add_gaug(
        self,
        grid_size: tuple[int, int],
        num_prefix_tokens: int,
        backend: str | None,
        start: str = 'paper',
        image_grid: ImageGrid | None = None,
        constants: Constants | None = None,
        kernel: str = 'axis',
    ) -> None:
        if backend is not None:
            get_backend(backend)  # an unknown name fails here, not in the first forward
        host = list(self.parameters())
        weight = host[0]
        if constants is not None:
            self.gaug = FixedGaussian(grid_size, *constants, device=weight.device)
        else:
            options = weight.device, weight.dtype, start, kernel
            self.gaug = GaussianAugment(self._head_dim(), grid_size, *options)
            self.gaug.requires_grad_(any(p.requires_grad for p in host))  # as frozen as its layer
        self.num_prefix_tokens = num_prefix_tokens
        self.backend = backend
        self.image_grid = image_grid

    def _head_dim(self) -> int:
        return self.qkv.out_features // (3 * self.num_heads)

    def _grid(self, x: Tensor, grid_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """The grid of tokens ``[B, N, C]``: the call's, the image's, or the one built for."""
        if grid_size is not None:
            return grid_size
        if self.image_grid is not None:
            return self.image_grid.of(x.shape[1] - self.num_prefix_tokens)
        return self.gaug.grid_size

    def _split_heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, N, 3·heads·head_dim]`` to q, k and v ``[B, heads, N, head_dim]``."""
        qkv = qkv.view(*qkv.shape[:2], 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        grid_size: tuple[int, int],
        attn_bias: Tensor | None = None,
        gaussian: tuple[Tensor, ...] | None = None,
        scale: float | None = None,
        dropout_p: float | None = None,
    ) -> Tensor:
        """Attention with heads merged, ``[B, N, heads·head_dim]``.

        Args:
            q, k, v: ``[B, heads, N, head_dim]``.
            grid_size: patches along (rows, columns).
            attn_bias: see :func:`locat_mm.ops.gaussian_attention`.
            gaussian: variance, alpha and, of a rotated kernel, correlation, if they do not come
                from q (rotary embedding).
            scale, dropout_p: the host's, if not ``self.scale`` and ``self.attn_drop.p``.
        """
        if gaussian is None:
            gaussian = self.gaug(q, grid_size, self.num_prefix_tokens, self.backend)
        variance, alpha, *correlation = gaussian
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
            check_values=False,  # a variance is never negative here, and eps is added
            correlation=correlation[0] if correlation else None,
        )
        return x.transpose(1, 2).flatten(2)


class RotaryGAugMixin(GAugMixin):
    """Global attention over prefix tokens and patches of timm, with a rotary embedding or not."""

    gate: Any
    norm: Any
    q_norm: Any
    k_norm: Any
    rotate_half: bool

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
            x: tokens ``[B, N, C]``, N = num_prefix_tokens + H·W, patches row-major.
            rope: sine and cosine of every patch, broadcastable to
                ``[B, heads, H·W, 2·head_dim]``.
            attn_mask: further mask or additive bias, broadcastable to ``[B, heads, N, N]``.
            is_causal: not supported.
            grid_size: patches along (rows, columns) of this input. It is an argument of the call,
                so a later forward on another grid cannot change an earlier graph. None: the grid
                of the image, or the one that the layer is built for.

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

    def _qkv(self, x: Tensor) -> Tensor:
        return self.qkv(x)

    def _rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        prefix, patches = x.tensor_split([self.num_prefix_tokens], dim=2)
        patches = apply_rot_embed_cat(patches, rope, half=self.rotate_half)
        return torch.cat([prefix, patches], dim=2)


class WindowGAugMixin(GAugMixin):
    """Attention in windows, with a relative position bias; the grid is the window."""

    window_size: tuple[int, int]

    @classmethod
    def fixed_grid(cls, attn: Any) -> tuple[int, int]:
        return attn.window_size

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
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

    def _get_rel_pos_bias(self) -> Tensor:
        """``[1, heads, N, N]``"""
        raise NotImplementedError  # of the host


class MMWindowGAugMixin(WindowGAugMixin):
    """``WindowMSA`` of mmpretrain and mmseg."""

    def _get_rel_pos_bias(self) -> Tensor:
        return _relative_position_bias(self)


class BEiTGAugMixin(GAugMixin):
    """``BEiTAttention`` of mmpretrain and mmseg, with a relative position bias or without."""

    bias: Any
    q_bias: Tensor
    v_bias: Tensor
    relative_position_bias_table: Tensor | None

    def forward(self, x: Tensor, rel_pos_bias: Tensor | None = None) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, patches row-major after the prefix tokens.
            rel_pos_bias: of all layers, ``[heads, N, N]``.

        Returns:
            tokens ``[B, N, C]``.

        Raises:
            ValueError: if N does not fit the grid or the relative position bias.
        """
        if self.bias == 'qv_bias':
            no_bias = torch.zeros_like(self.v_bias)
            qkv = F.linear(x, self.qkv.weight, torch.cat((self.q_bias, no_bias, self.v_bias)))
        else:
            qkv = self.qkv(x)
        q, k, v = self._split_heads(qkv)
        bias = rel_pos_bias
        if self.relative_position_bias_table is not None:
            own = _relative_position_bias(self)
            bias = own if bias is None else own + bias
        return self.proj_drop(self.proj(self._attend(q, k, v, self._grid(x), bias)))


def _relative_position_bias(attn: Any) -> Tensor:
    """``[1, heads, N, N]``"""
    index = attn.relative_position_index
    return attn.relative_position_bias_table[index.flatten()].T.unflatten(1, index.shape)[None]
