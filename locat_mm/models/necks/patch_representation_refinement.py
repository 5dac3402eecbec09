"""PRR as a neck of mmpretrain classifiers and mmseg segmentors (arXiv 2603.04892)."""

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...ops import refine_patches
from ...registry import MODELS, register

__all__ = ['PatchRepresentationRefinement']


@register(MODELS)
class PatchRepresentationRefinement(BaseModule):
    """``x⁺ = softmax(x xᵀ/√d) x`` over all output tokens, then a pooling for the head.

    Without PRR, a head on [CLS] gives no gradient to the last block's patches and GAug.

    Args:
        num_heads: heads of the backbone; they must divide the channels.
        pool: ``'cls_token'`` the first token, ``'avg'`` the mean of the patches, ``'prefix'`` the
            prefix tokens concatenated, None all tokens or the map.
        num_prefix_tokens: tokens in front of the patches, for ``'avg'`` (default 0, because such
            models have no class token) and ``'prefix'`` (required).
        norm_cfg: norm after the pooling, e.g. ``dict(type='LN', eps=1e-6)``. Models with
            ``pool='avg'`` have it in place of the backbone's final norm.
        norm_channels: channels of that norm; given together with ``norm_cfg``.
        init_cfg: mmengine's.

    Raises:
        ValueError: for an unknown ``pool`` or one without the tokens that it reads, or for a norm
            without a pooling or without channels.
    """

    POOLS = ('cls_token', 'avg', 'prefix', None)

    def __init__(
        self,
        num_heads: int,
        pool: str | None = 'cls_token',
        num_prefix_tokens: int | None = None,
        norm_cfg: dict | None = None,
        norm_channels: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pool not in self.POOLS:
            raise ValueError(f'unknown pool {pool!r}; choose from {self.POOLS}')
        if pool == 'prefix' and not num_prefix_tokens:
            raise ValueError(f"pool='prefix' needs prefix tokens, got {num_prefix_tokens=}")
        if pool == 'cls_token' and num_prefix_tokens == 0:
            raise ValueError("pool='cls_token' needs a class token, got num_prefix_tokens=0")
        if pool is None and norm_cfg is not None:
            raise ValueError(f'the norm comes after a pooling, and pool is None: {norm_cfg=}')
        if (norm_cfg is None) != (norm_channels is None):
            raise ValueError(f'give both or neither of {norm_cfg=} and {norm_channels=}')
        self.num_heads = num_heads
        self.pool = pool
        self.num_prefix_tokens = num_prefix_tokens or 0
        self.norm = build_norm_layer(norm_cfg, norm_channels)[1] if norm_cfg else nn.Identity()

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """
        Args:
            feats: tokens ``[B, N, C]`` (backbone ``out_type='raw'``) or maps
                ``[B, C, H, W]``, one per backbone output.

        Returns:
            one tensor per input: ``[B, C]`` for ``'cls_token'`` and ``'avg'``,
            ``[B, P·C]`` for ``'prefix'``, the input's shape for None.

        Raises:
            TypeError: if ``feats`` is no tuple.
            ValueError: if a feature is neither tokens nor a map, if ``pool`` reads prefix tokens
                and the feature is a map, or if C is not divisible by ``num_heads``.
        """
        if not isinstance(feats, (tuple, list)):
            raise TypeError(f'feats must be a tuple of tensors, got {type(feats).__name__}')
        return tuple(self.norm(self._refine(x)) for x in feats)

    def _refine(self, x: Tensor) -> Tensor:
        if x.ndim not in (3, 4):
            raise ValueError(
                f'tokens [B, N, C] or a map [B, C, H, W] expected, got {tuple(x.shape)}; '
                "the backbone needs out_type='raw' or 'featmap'"
            )
        is_map = x.ndim == 4
        if is_map and self.pool in ('cls_token', 'prefix'):
            raise ValueError(f'pool={self.pool!r} reads tokens that a map {tuple(x.shape)} lacks')
        tokens = x.flatten(2).transpose(1, 2) if is_map else x  # [B, N, C]
        if self.pool == 'cls_token':
            return refine_patches(tokens, self.num_heads, 1)[:, 0]
        if self.pool == 'prefix':
            return refine_patches(tokens, self.num_heads, self.num_prefix_tokens).flatten(1)
        tokens = refine_patches(tokens, self.num_heads)
        if self.pool == 'avg':
            return tokens[:, 0 if is_map else self.num_prefix_tokens :].mean(dim=1)
        return tokens.transpose(1, 2).unflatten(2, x.shape[-2:]) if is_map else tokens
