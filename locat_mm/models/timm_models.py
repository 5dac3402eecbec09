"""LocAt models by name in timm: ``timm.create_model('locatvit_tiny', pretrained=True)``.

These are timm's own classes with GAug in every attention layer and PRR as the pooling
(``global_pool='prr'``), so the authors' weights load with unchanged keys. Importing this module
registers the names.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from huggingface_hub.errors import LocalEntryNotFoundError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import AttentionPoolPrr
from timm.models import build_model_with_cfg, eva, generate_default_cfgs, register_model
from timm.models import swin_transformer as swin
from timm.models import vision_transformer as vit
from timm.models._builder import resolve_pretrained_cfg
from torch import Tensor, nn

from ..checkpoint.sources import how_to_place
from ..layers import attach
from ..ops import refine_patches
from .backbones import LocAtSwin, LocAtViT

__all__ = ['EvaPRR', 'SwinPRR']


class EvaPRR(eva.Eva):
    """timm's ``Eva`` with PRR before the class token is read, if ``global_pool='prr'``.

    Args:
        global_pool: ``'prr'``, or any of timm's, without PRR.
        kwargs: of ``Eva``.
    """

    attn_pool: Any

    def __init__(self, global_pool: str = 'prr', num_heads: int = 12, **kwargs) -> None:
        self._num_heads = num_heads
        pool = 'token' if global_pool == 'prr' else global_pool
        super().__init__(global_pool=pool, num_heads=num_heads, **kwargs)
        if global_pool == 'prr':
            self._add_prr()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier.

        Args:
            num_classes: of the new one; 0 for none.
            global_pool: None keeps the pooling.
        """
        super().reset_classifier(num_classes, 'token' if global_pool == 'prr' else global_pool)
        if global_pool == 'prr':
            self._add_prr()

    def _add_prr(self) -> None:
        pool: Any = AttentionPoolPrr(self.embed_dim, num_heads=self._num_heads)
        self.attn_pool = pool
        self.global_pool = 'prr'


class SwinPRR(swin.SwinTransformer):
    """timm's ``SwinTransformer`` with PRR before the average pooling, if ``global_pool='prr'``.

    Args:
        global_pool: ``'prr'``, or any of timm's, without PRR.
        kwargs: of ``SwinTransformer``.
    """

    def __init__(
        self, global_pool: str = 'prr', num_heads: tuple[int, ...] = (3, 6, 12, 24), **kwargs
    ) -> None:
        self._num_heads = num_heads[-1]
        pool = 'avg' if global_pool == 'prr' else global_pool
        super().__init__(global_pool=pool, num_heads=num_heads, **kwargs)
        self.global_pool = global_pool

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier.

        Args:
            num_classes: of the new one; 0 for none.
            global_pool: None keeps the pooling.
        """
        super().reset_classifier(num_classes, 'avg' if global_pool == 'prr' else global_pool)
        self.global_pool = self.global_pool if global_pool is None else global_pool

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """
        Args:
            x: the last map, normed, ``[B, H, W, C]``.
            pre_logits: leave out the classifier.

        Returns:
            logits ``[B, num_classes]``, or the pooled map ``[B, C]``.
        """
        if self.global_pool == 'prr':
            x = refine_patches(x.flatten(1, 2), self._num_heads).view_as(x)
        return super().forward_head(x, pre_logits)


def _with_gaug(
    host_cls: Callable[..., nn.Module],
    gaug: bool = True,
    attention_backend: str | None = None,
    alpha_scale: float = 1.0,
    kernel: str = 'axis',
    **kwargs,
) -> nn.Module:
    return attach(
        host_cls(**kwargs),
        gaug,
        start='paper',
        attention_backend=attention_backend,
        alpha_scale=alpha_scale,
        kernel=kernel,
    )


def _create(
    host_cls: Callable[..., nn.Module],
    filter_fn: Callable,
    variant: str,
    pretrained: bool,
    feature_cfg: dict[str, Any],
    **kwargs,
) -> nn.Module:
    """Build a model as timm does.

    Raises:
        FileNotFoundError: if the weights are not in the hub's cache and the hub is out of reach.
        RuntimeError: timm's, if ``pretrained`` and no weights are published, or the weights do
            not fit.
    """
    feature_cfg['out_indices'] = kwargs.pop('out_indices', feature_cfg['out_indices'])
    try:
        return build_model_with_cfg(
            partial(_with_gaug, host_cls),
            variant,
            pretrained,
            pretrained_filter_fn=filter_fn,
            feature_cfg=feature_cfg,
            **kwargs,
        )
    except LocalEntryNotFoundError as error:
        cfg = resolve_pretrained_cfg(
            variant, kwargs.get('pretrained_cfg'), kwargs.get('pretrained_cfg_overlay')
        )
        assert cfg.hf_hub_id is not None
        repo, _, revision = cfg.hf_hub_id.partition('@')
        place = (
            f"timm.create_model('{variant}', pretrained=True, "
            "pretrained_cfg_overlay=dict(file='PATH'))"
        )
        message = how_to_place(repo, revision or None, error, f'use {place}')
        raise FileNotFoundError(message) from error


def _vit(variant: str, pretrained: bool, **kwargs) -> nn.Module:
    args = {**LocAtViT.ARCHS[variant.rpartition('_')[2]], 'global_pool': 'prr', **kwargs}
    features = dict(out_indices=3, feature_cls='getter')
    return _create(
        vit.VisionTransformer, vit.checkpoint_filter_fn, variant, pretrained, features, **args
    )


def _rope_vit(variant: str, pretrained: bool, **kwargs) -> nn.Module:
    rope = dict(
        attn_type='rope',
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        rope_type='mixed',
        rope_temperature=10.0,
        rope_grid_indexing='xy',
    )
    start = dict(init_values=1e-5, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    args = {**LocAtViT.ARCHS[variant.rpartition('_')[2]], **rope, **start, **kwargs}
    features = dict(out_indices=3, feature_cls='getter')
    return _create(EvaPRR, eva.checkpoint_filter_fn, variant, pretrained, features, **args)


def _swin(variant: str, pretrained: bool, **kwargs) -> nn.Module:
    args = {**LocAtSwin.ARCHS[variant.rpartition('_')[2]], **kwargs}
    features = dict(out_indices=(0, 1, 2, 3), flatten_sequential=True)
    return _create(SwinPRR, swin.checkpoint_filter_fn, variant, pretrained, features, **args)


def _cfg(**kwargs) -> dict[str, Any]:
    """As the authors train and test: mean and std 0.5, crop 0.9, bicubic."""
    return {
        **vit._cfg(),
        'license': 'mit',
        'origin_url': 'https://github.com/sinahmr/LocAtViT',
        'paper_ids': 'arXiv:2603.04892',
        **kwargs,
    }


_IMAGENET = dict(mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)
_SWIN_CFG = dict(pool_size=(7, 7), classifier='head.fc', **_IMAGENET)

# timm's register_model reads this name.
default_cfgs = generate_default_cfgs(
    {
        'locatvit_tiny': _cfg(hf_hub_id='sinahmr/locatvit_tiny'),
        'locatvit_small': _cfg(),
        'locatvit_base': _cfg(hf_hub_id='sinahmr/locatvit_base'),
        'locatregvit_tiny': _cfg(),
        'locatregvit_small': _cfg(),
        'locatregvit_base': _cfg(),
        'locatropevit_tiny': _cfg(**_IMAGENET),
        'locatropevit_small': _cfg(**_IMAGENET),
        'locatropevit_base': _cfg(**_IMAGENET),
        'locatswin_tiny': _cfg(**_SWIN_CFG),
        'locatswin_small': _cfg(**_SWIN_CFG),
        'locatswin_base': _cfg(**_SWIN_CFG),
    }
)


@register_model
def locatvit_tiny(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT, 192 channels, 3 heads."""
    return _vit('locatvit_tiny', pretrained, **kwargs)


@register_model
def locatvit_small(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT, 384 channels, 6 heads; no weights are published."""
    return _vit('locatvit_small', pretrained, **kwargs)


@register_model
def locatvit_base(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT, 768 channels, 12 heads."""
    return _vit('locatvit_base', pretrained, **kwargs)


@register_model
def locatregvit_tiny(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT with 4 registers, 192 channels; no weights are published."""
    return _vit('locatregvit_tiny', pretrained, **{'reg_tokens': 4, **kwargs})


@register_model
def locatregvit_small(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT with 4 registers, 384 channels; no weights are published."""
    return _vit('locatregvit_small', pretrained, **{'reg_tokens': 4, **kwargs})


@register_model
def locatregvit_base(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT with 4 registers, 768 channels; no weights are published."""
    return _vit('locatregvit_base', pretrained, **{'reg_tokens': 4, **kwargs})


@register_model
def locatropevit_tiny(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT with mixed rotary embedding, 192 channels; no weights are published."""
    return _rope_vit('locatropevit_tiny', pretrained, **kwargs)


@register_model
def locatropevit_small(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT with mixed rotary embedding, 384 channels; no weights are published."""
    return _rope_vit('locatropevit_small', pretrained, **kwargs)


@register_model
def locatropevit_base(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtViT with mixed rotary embedding, 768 channels; no weights are published."""
    return _rope_vit('locatropevit_base', pretrained, **kwargs)


@register_model
def locatswin_tiny(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtSwin, 96 channels at first, 12 blocks; no weights are published."""
    return _swin('locatswin_tiny', pretrained, **kwargs)


@register_model
def locatswin_small(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtSwin, 96 channels at first, 24 blocks; no weights are published."""
    return _swin('locatswin_small', pretrained, **kwargs)


@register_model
def locatswin_base(pretrained: bool = False, **kwargs) -> nn.Module:
    """LocAtSwin, 128 channels at first, 24 blocks; no weights are published."""
    return _swin('locatswin_base', pretrained, **kwargs)
