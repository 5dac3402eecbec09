"""The attention layer: built from a config, and put into a host."""

import pytest
import torch
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from locat_mm.layers import GaussianAugmentedAttention, add_gaug
from locat_mm.registry import MODELS


def make_host(**kwargs):
    return VisionTransformer(
        img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=2, num_classes=3, **kwargs
    )


def test_built_from_a_config_it_takes_tokens_and_a_grid():
    layer = MODELS.build(
        dict(
            type='GaussianAugmentedAttention',
            dim=12,
            num_heads=2,
            grid_size=(2, 3),
            num_prefix_tokens=1,
            qkv_bias=True,
        )
    )
    x = torch.randn(2, 7, 12)
    assert layer(x).shape == x.shape
    torch.testing.assert_close(layer(x), layer(x, grid_size=(2, 3)))
    assert not torch.allclose(layer(x), layer(x, grid_size=(3, 2)))
    with pytest.raises(ValueError, match='7 tokens do not fit 1 prefix tokens and a grid of 2×4'):
        layer(x, grid_size=(2, 4))


def test_keeps_timm_options():
    options = dict(
        qkv_bias=True, qk_norm=True, scale_norm=True, gated=True, norm_layer=nn.LayerNorm
    )
    host = Attention(12, 2, **options).eval()
    ours = GaussianAugmentedAttention(12, 2, (2, 3), 1, **options).eval()
    missing, unexpected = ours.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected and all(key.startswith('gaug.') for key in missing)
    nn.init.constant_(ours.gaug.log_alpha.bias, -1e4)  # alpha = 0: the host's own numbers
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(x), host(x))
    mask = torch.randn(7, 7)
    torch.testing.assert_close(ours(x, attn_mask=mask), host(x, attn_mask=mask))


def test_the_gradient_reaches_every_parameter():
    layer = GaussianAugmentedAttention(12, 2, (2, 3), 1, qkv_bias=True)
    (layer(torch.randn(2, 7, 12)) ** 2).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def test_augmenting_a_host_adds_only_gaug_keys():
    torch.manual_seed(3)
    plain = make_host()
    before = plain.state_dict()
    torch.manual_seed(3)
    host = make_host()
    hooked = []
    host.blocks[0].attn.register_forward_hook(lambda *_: hooked.append(1))
    assert add_gaug(host, (4, 4), 1) is host
    after = host.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert {k.split('.attn.')[1] for k in set(after) - set(before)} == {
        'gaug.log_var.weight',
        'gaug.log_var.bias',
        'gaug.log_alpha.weight',
        'gaug.log_alpha.bias',
    }
    host.blocks[0](torch.randn(1, 17, 12), grid_size=(4, 4))
    assert hooked


def test_what_cannot_be_augmented_is_named():
    with pytest.raises(TypeError, match='Linear has no attention layer'):
        add_gaug(nn.Linear(2, 2), (4, 4))
    host = make_host()
    add_gaug(host, (4, 4), 1)
    with pytest.raises(TypeError, match='blocks.0.attn has GAug already'):
        add_gaug(host, (4, 4), 1)
    host = make_host(attn_layer='diff')
    with pytest.raises(TypeError, match=r'blocks.0.attn is a DiffAttention'):
        add_gaug(host, (4, 4), 1)
    with pytest.raises(TypeError, match='got Linear'):
        GaussianAugmentedAttention.convert(nn.Linear(2, 2), (4, 4))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='dim=10 is not divisible by num_heads=3'):
        GaussianAugmentedAttention(10, 3)
    with pytest.raises(ValueError, match="unknown attention backend 'cuda'"):
        GaussianAugmentedAttention(12, 3, backend='cuda')
    with pytest.raises(ValueError, match='is_causal=True'):
        GaussianAugmentedAttention(12, 3, (1, 2))(torch.randn(1, 2, 12), is_causal=True)
