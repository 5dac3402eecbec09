"""Small hosts of timm, mmpretrain and mmseg that attach takes."""

import timm
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from locat_mm.registry import MODELS

VIT = dict(depth=2, embed_dim=48, num_heads=3)
MMSEG = dict(embed_dims=48, num_layers=2, num_heads=3, out_indices=(0, 1))
SMALL = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96, num_extra_tokens=1)
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
SWIN = dict(embed_dims=24, depths=[2, 2], num_heads=[2, 4])

# name -> (package, what its registry or timm.create_model is given)
HOSTS = {
    'timm-vit': ('timm', dict(model_name='vit_tiny_patch16_224', dynamic_img_size=True, **VIT)),
    'timm-deit-distilled': ('timm', dict(model_name='deit_tiny_distilled_patch16_224', **VIT)),
    'timm-clip': ('timm', dict(model_name='vit_base_patch16_clip_224', **VIT)),
    'timm-siglip': ('timm', dict(model_name='vit_base_patch16_siglip_224', **VIT)),
    'timm-dinov2': (
        'timm',
        dict(model_name='vit_small_patch14_reg4_dinov2', dynamic_img_size=True, **VIT),
    ),
    'timm-dinov3': ('timm', dict(model_name='vit_small_patch16_dinov3', **VIT)),
    'timm-eva02': (
        'timm',
        dict(model_name='eva02_tiny_patch14_224', dynamic_img_size=True, **VIT),
    ),
    'timm-rope': (
        'timm',
        dict(model_name='vit_base_patch16_rope_224', dynamic_img_size=True, **VIT),
    ),
    'timm-beit': ('timm', dict(model_name='beit_base_patch16_224', img_size=64, **VIT)),
    'timm-swin': (
        'timm',
        dict(
            model_name='swin_tiny_patch4_window7_224',
            img_size=112,
            embed_dim=24,
            depths=(2, 2),
            num_heads=(2, 4),
        ),
    ),
    'mmpretrain-vit': (
        'mmpretrain',
        dict(type='VisionTransformer', arch=ARCH, img_size=64, patch_size=16),
    ),
    'mmpretrain-clip': (
        'mmpretrain',
        dict(
            type='VisionTransformer',
            arch=ARCH,
            img_size=64,
            patch_size=16,
            pre_norm=True,
            layer_cfgs=dict(act_cfg=dict(type='QuickGELU')),
        ),
    ),
    'mmpretrain-vit-maps': (
        'mmpretrain',
        dict(
            type='VisionTransformer',
            arch=ARCH,
            img_size=64,
            patch_size=16,
            with_cls_token=False,
            out_type='featmap',
        ),
    ),
    'mmpretrain-deit': (
        'mmpretrain',
        dict(type='DistilledVisionTransformer', arch=ARCH, img_size=64, patch_size=16),
    ),
    'mmpretrain-deit3': (
        'mmpretrain',
        dict(type='DeiT3', arch=ARCH, img_size=64, patch_size=16),
    ),
    'mmpretrain-beit': (
        'mmpretrain',
        dict(type='BEiTViT', arch=ARCH, img_size=64, patch_size=16),
    ),
    'mmpretrain-eva02': (
        'mmpretrain',
        dict(type='ViTEVA02', arch={**ARCH, 'feedforward_channels': 128}, img_size=56),
    ),
    'mmpretrain-sam': (
        'mmpretrain',
        dict(
            type='ViTSAM',
            arch={**ARCH, 'global_attn_indexes': [1]},
            img_size=96,
            out_channels=16,
            use_rel_pos=True,
            window_size=4,
        ),
    ),
    'mmpretrain-swin': (
        'mmpretrain',
        dict(type='SwinTransformer', arch=SWIN, img_size=112, out_indices=(1,)),
    ),
    'mmseg-vit': ('mmseg', dict(type='VisionTransformer', img_size=(64, 64), **MMSEG)),
    'mmseg-vit-without-cls': (
        'mmseg',
        dict(type='VisionTransformer', img_size=(64, 64), with_cls_token=False, **MMSEG),
    ),
    'mmseg-beit': ('mmseg', dict(type='BEiT', img_size=(64, 64), init_values=0.1, **MMSEG)),
    'mmseg-mae': ('mmseg', dict(type='MAE', img_size=(64, 64), init_values=0.1, **MMSEG)),
    'mmseg-swin': (
        'mmseg',
        dict(
            type='SwinTransformer',
            **{**SWIN, 'depths': (2, 2), 'num_heads': (2, 4)},
            strides=(4, 2),
            out_indices=(0, 1),
        ),
    ),
}
# Those that take images of another size and shape as well.
OTHER_SIZES = {
    'timm-vit': (32, 96),
    'timm-dinov2': (42, 28),
    'timm-dinov3': (32, 96),
    'timm-eva02': (28, 42),
    'timm-rope': (48, 32),
    'mmpretrain-vit': (32, 96),
    'mmpretrain-vit-maps': (96, 32),
    'mmpretrain-swin': (100, 60),
    'mmpretrain-sam': (96, 64),
    'mmseg-vit': (32, 96),
    'mmseg-vit-without-cls': (96, 32),
    'mmseg-swin': (100, 60),
}


def build(name: str, **kwargs: object) -> nn.Module:
    """A host in eval mode."""
    package, cfg = HOSTS[name]
    cfg = {**cfg, **kwargs}
    if package == 'timm':
        host = timm.create_model(**cfg)
    else:
        with DefaultScope.overwrite_default_scope(package):
            host = MODELS.build(cfg)
        host.init_weights()
    # Fresh hosts start with layer scales near 0 and outputs of 0: nothing could be seen.
    for parameter in host.parameters():
        if parameter.ndim > 1 or (parameter == parameter[:1]).all():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    host.eval()  # OpenMMLab's return nothing
    return host


def image_size(name: str) -> tuple[int, int]:
    package, cfg = HOSTS[name]
    size = cfg.get('img_size', 112 if 'swin' in name else 224)
    if package == 'timm' and cfg.get('dynamic_img_size'):
        size = 56 if 'patch14' in cfg['model_name'] else 64
    return (size, size) if isinstance(size, int) else size


def features(model: nn.Module, images: Tensor) -> Tensor:
    """One tensor of all that a model puts out."""
    leaves, _ = tree_flatten(model(images))
    return torch.cat([x.flatten() for x in leaves])
