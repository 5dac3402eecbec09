"""Small vision transformers of timm, and the backbones that hold them."""

import pytest
import timm
import torch

from locat_mm.models import TIMMBackbone

TINY = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
ROTARY = {**TINY, 'embed_dim': 48}
SWIN = dict(img_size=64, window_size=4, embed_dim=8, depths=(2, 1, 1), num_heads=(1, 2, 4))
HOSTS = {
    'vit': ('vit_base_patch16_224', TINY),
    'clip': ('vit_base_patch16_clip_224', TINY),
    'dinov2': ('vit_small_patch14_reg4_dinov2', TINY),
    'siglip': ('vit_base_patch16_siglip_224', TINY),
    'deit': ('deit_tiny_distilled_patch16_224', TINY),
    'dinov3': ('vit_small_patch16_dinov3', ROTARY),
    'eva02': ('eva02_tiny_patch14_224', ROTARY),
    'beit': ('beit_base_patch16_224', TINY),
    'swin': ('swin_tiny_patch4_window7_224', SWIN),
}
FIXED_SIZE = ('beit',)

every_host = pytest.mark.parametrize('host', HOSTS)


def make(host, **kwargs):
    name, small = HOSTS[host]
    return TIMMBackbone(name, **{**small, **kwargs}).eval()


def make_theirs(host, ours=None, **kwargs):
    """The whole model as timm builds it; its weights are given to ours."""
    name, small = HOSTS[host]
    if host not in FIXED_SIZE:
        kwargs.setdefault('dynamic_img_size', True)
    theirs = timm.create_model(name, **{**small, **kwargs}).eval()
    for parameter in theirs.parameters():  # norms and embeddings that start at 1 and 0 too
        parameter.data += 0.1 * torch.randn_like(parameter)
    if ours is not None:
        given = theirs.state_dict()
        ours.model.load_state_dict({key: given[key] for key in ours.model.state_dict()})
    return theirs


def make_image(host, num_images=2):
    side = HOSTS[host][1]['img_size']
    return torch.randn(num_images, 3, side, side if host in FIXED_SIZE else side + 16)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
