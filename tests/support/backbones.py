"""Small models of every family."""

import torch
from mmengine.registry import DefaultScope
from torch import nn

from locat_mm.registry import MODELS

ARCH = dict(embed_dim=24, depth=2, num_heads=3)
SWIN = dict(embed_dim=8, depths=(2, 2), num_heads=(2, 2))
FAMILIES = {
    'vit': dict(type='LocAtViT', arch=ARCH),
    'vit-gap': dict(type='LocAtViT', arch=ARCH, class_token=False),
    'regvit': dict(type='LocAtViT', arch=ARCH, num_registers=4),
    'ropevit': dict(type='LocAtRoPEViT', arch=ARCH),
    'jumbo': dict(type='LocAtJumbo', arch=ARCH, num_jumbo_tokens=3),
    'swin': dict(type='LocAtSwin', arch=SWIN, patch_size=4, window_size=3),
}


def build(family: str, gaug: bool = True, img_size=(24, 40), **kwargs) -> nn.Module:
    """A backbone in eval mode whose Gaussians differ from patch to patch."""
    cfg = dict(img_size=img_size, patch_size=8, gaug=gaug, out_type='featmap')
    cfg |= FAMILIES[family] | kwargs
    with DefaultScope.overwrite_default_scope('locat_mm'):
        model = MODELS.build(cfg)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()
