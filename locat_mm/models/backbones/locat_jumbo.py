"""LocAtJumbo and its plain baseline (arXiv 2603.04892; Jumbo: arXiv 2502.15021)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModule
from timm.layers import DropPath, LayerNorm, LayerScale, Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ...helpers import check_choice
from ...registry import MODELS, register
from .base import TokenBackbone
from .locat_vit import LocAtViT

__all__ = ['JumboBlock', 'LocAtJumbo']


class JumboBlock(Block):
    """timm's pre-norm ``Block`` with a separate MLP for the class tokens, joined to one wide token.

    Args:
        dim: channels C of a token.
        num_heads: heads of the attention.
        num_jumbo_tokens: number J of class tokens at the front.
        init_values: initial value of the layer scale.
        drop_path: stochastic depth rate.
        kwargs: of timm's ``Block``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_jumbo_tokens: int,
        init_values: float,
        drop_path: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(dim, num_heads, init_values=init_values, drop_path=drop_path, **kwargs)
        width = num_jumbo_tokens * dim
        self.num_jumbo_tokens = num_jumbo_tokens
        self.norm3 = LayerNorm(width, eps=1e-5)
        self.ls3 = LayerScale(width, init_values=init_values)
        self.drop_path3 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(  # type: ignore[override]
        self, x: Tensor, jumbo_mlp: nn.Module, grid_size: tuple[int, int] | None = None
    ) -> Tensor:
        """
        Args:
            x: tokens ``[B, N, C]``, the J class tokens first.
            jumbo_mlp: ``[B, J·C]`` to ``[B, J·C]``, the same module in all blocks.
            grid_size: patches along (rows, columns), for GAug. None for attention without GAug.

        Returns:
            tokens ``[B, N, C]``.
        """
        grid = {} if grid_size is None else dict(grid_size=grid_size)
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), **grid)))
        jumbo, patches = x[:, : self.num_jumbo_tokens], x[:, self.num_jumbo_tokens :]
        wide = jumbo.flatten(1)  # [B, J·C]
        wide = wide + self.drop_path3(self.ls3(jumbo_mlp(self.norm3(wide))))
        patches = patches + self.drop_path2(self.ls2(self.mlp(self.norm2(patches))))
        return torch.cat([wide.view_as(jumbo), patches], dim=1)


@register(MODELS)
class LocAtJumbo(TokenBackbone, VisionTransformer, BaseModule):  # type: ignore[misc]
    """A Jumbo vision transformer with GAug in every attention layer.

    J class tokens attend as tokens of width C. They pass through an MLP as one token of width
    J·C; all blocks share the weights of this MLP. The keys are the authors'. With ``gaug=False``
    it is the plain Jumbo, whose patches have no final norm.

    Args:
        num_jumbo_tokens: number J of class tokens.
        out_type: ``'raw'`` all tokens [B, N, C], ``'cls_token'`` the class tokens side by side
            [B, J·C], ``'featmap'`` [B, C, H, W], ``'avg_featmap'`` the mean of the patches [B, C].
        final_norm: apply the final LayerNorm over J·C to the last block's class tokens and,
            with ``gaug``, another to its patches.
        layer_scale: initial value of the layer scale.
        arch, img_size, patch_size, in_channels, gaug, pos_embed, drop_path_rate, out_indices,
            frozen, attention_backend, grad_checkpointing, init_cfg, alpha_scale, kernel: see
            :class:`LocAtViT`.

    Raises:
        ValueError: as :class:`LocAtViT`; also if ``num_jumbo_tokens`` is below 1.
        TypeError: if ``arch`` is neither a name nor a dict.
    """

    ARCHS = LocAtViT.ARCHS
    FINAL_NORMS = (*TokenBackbone.FINAL_NORMS, 'norm_patches')

    def __init__(
        self,
        arch: str | dict[str, Any] = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_channels: int = 3,
        gaug: bool = True,
        num_jumbo_tokens: int = 6,
        pos_embed: str = 'learned',
        layer_scale: float = 1e-4,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'cls_token',
        final_norm: bool = True,
        frozen: bool = False,
        attention_backend: str | None = None,
        grad_checkpointing: bool = False,
        init_cfg: dict | list | None = None,
        alpha_scale: float = 1.0,
        kernel: str = 'axis',
    ) -> None:
        arch = self._resolve_arch(arch)
        self._check_options(out_type, gaug, attention_backend, alpha_scale, kernel)
        check_choice('pos_embed', pos_embed, ('learned', 'none'))
        if num_jumbo_tokens < 1:
            raise ValueError(f'at least one class token is needed, got {num_jumbo_tokens=}')
        VisionTransformer.__init__(
            self,
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_channels,
            global_pool='',
            pos_embed='learn' if pos_embed == 'learned' else 'none',
            no_embed_class=True,
            final_norm=False,  # Jumbo's norm is wider, see below
            init_values=layer_scale,
            drop_path_rate=drop_path_rate,
            block_fn=partial(JumboBlock, num_jumbo_tokens=num_jumbo_tokens),  # type: ignore[arg-type]
            weight_init='skip',
            **self.HOST_OPTIONS,
            **arch,
        )
        embed_dim = arch['embed_dim']
        width = num_jumbo_tokens * embed_dim
        self.cls_token = nn.Parameter(torch.empty(1, num_jumbo_tokens, embed_dim))
        self.num_prefix_tokens = num_jumbo_tokens
        self.jumbo_mlp = Mlp(width, 4 * width)
        if final_norm:
            self.norm = LayerNorm(width, eps=1e-5)
        self.norm_patches = LayerNorm(embed_dim, eps=1e-5) if final_norm and gaug else nn.Identity()
        self.weight_init_mode = ''  # timm's default scheme, in place of 'skip'
        self.init_weights(needs_reset=False)
        self._configure(
            gaug,
            attention_backend,
            alpha_scale,
            out_type,
            out_indices,
            frozen,
            grad_checkpointing,
            init_cfg,
            kernel,
        )

    def _embed(self, x: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        return self._pos_embed(x), [dict(jumbo_mlp=self.jumbo_mlp) for _ in self.blocks]

    def _norm_tokens(self, x: Tensor) -> Tensor:
        jumbo, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        wide = self.norm(jumbo.flatten(1))
        # Both norms run for every out_type, so both always get a gradient.
        return torch.cat([wide.view_as(jumbo), self.norm_patches(patches)], dim=1)

    def read_class(self, x: Tensor) -> Tensor:
        """The class tokens side by side, ``[B, J·C]``, of tokens ``[B, N, C]``."""
        return x[:, : self.num_prefix_tokens].flatten(1)

    def _find_depth(self, name: str) -> int | None:
        # The shared MLP belongs to the last block.
        return len(self.blocks) if name.startswith('jumbo_mlp.') else super()._find_depth(name)
