"""PRR as a neck, and the linear decoder."""

import pytest
import torch
from torch import nn

from locat_mm.models import LinearSegHead, PatchRepresentationRefinement
from locat_mm.ops import refine_patches
from tests.support.golden import Golden


def test_pools_of_tokens():
    x = torch.randn(2, 9, 12)
    refined = refine_patches(x, 3)
    expected = {
        'cls_token': refined[:, 0],
        'avg': refined[:, 2:].mean(1),
        'prefix': refined[:, :2].reshape(2, 24),
        None: refined,
    }
    for pool, value in expected.items():
        out = PatchRepresentationRefinement(3, pool, num_prefix_tokens=2)((x, x))
        assert isinstance(out, tuple) and len(out) == 2
        torch.testing.assert_close(out[1], value)


def test_maps_equal_the_authors():
    golden = Golden('units')
    neck = PatchRepresentationRefinement(4, pool=None, num_prefix_tokens=0)
    out = neck((golden['prr2/x'],))[0]  # [B, C, H, W]
    torch.testing.assert_close(out, golden['prr2/y'], rtol=0, atol=1e-6)
    pooled = PatchRepresentationRefinement(4, pool='avg')((golden['prr2/x'],))[0]
    torch.testing.assert_close(pooled, golden['prr2/y'].mean((2, 3)), rtol=0, atol=1e-6)


def test_the_norm_comes_after_the_pooling():
    x = torch.randn(2, 6, 12)
    neck = PatchRepresentationRefinement(3, 'avg', 0, dict(type='LN', eps=1e-6), 12)
    expected = nn.functional.layer_norm(refine_patches(x, 3).mean(1), (12,), eps=1e-6)
    torch.testing.assert_close(neck((x,))[0], expected)
    assert set(neck.state_dict()) == {'norm.weight', 'norm.bias'}


def test_neck_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown pool 'max'"):
        PatchRepresentationRefinement(3, 'max')
    with pytest.raises(ValueError, match="pool='prefix' needs prefix tokens"):
        PatchRepresentationRefinement(3, 'prefix', num_prefix_tokens=0)
    with pytest.raises(ValueError, match="pool='prefix' needs prefix tokens"):
        PatchRepresentationRefinement(3, 'prefix')
    with pytest.raises(ValueError, match='needs a class token'):
        PatchRepresentationRefinement(3, num_prefix_tokens=0)
    with pytest.raises(ValueError, match='pool is None'):
        PatchRepresentationRefinement(3, None, norm_cfg=dict(type='LN'), norm_channels=3)
    with pytest.raises(ValueError, match='both or neither'):
        PatchRepresentationRefinement(3, 'avg', norm_cfg=dict(type='LN'))
    neck = PatchRepresentationRefinement(3)
    with pytest.raises(TypeError, match='tuple of tensors, got Tensor'):
        neck(torch.ones(1, 2, 12))
    with pytest.raises(ValueError, match="needs out_type='raw'"):
        neck((torch.ones(1, 12),))
    with pytest.raises(ValueError, match='a map .* lacks'):
        neck((torch.ones(1, 12, 2, 2),))
    with pytest.raises(ValueError, match='not divisible by num_heads=3'):
        neck((torch.ones(1, 2, 10),))


def test_the_head_is_conv_norm_gelu_conv():
    head = LinearSegHead(in_channels=6, channels=8, num_classes=5).eval()
    x = torch.randn(2, 6, 3, 4)
    conv, norm = head.hidden.conv, head.hidden.gn
    hidden = torch.einsum('oi,bihw->bohw', conv.weight[:, :, 0, 0], x)
    hidden = hidden + conv.bias[:, None, None]
    mean = hidden.mean((1, 2, 3), keepdim=True)
    var = hidden.var((1, 2, 3), keepdim=True, unbiased=False)
    hidden = (hidden - mean) / (var + norm.eps).sqrt()
    hidden = hidden * norm.weight[:, None, None] + norm.bias[:, None, None]
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    expected = torch.einsum('oi,bihw->bohw', head.conv_seg.weight[:, :, 0, 0], hidden)
    expected = expected + head.conv_seg.bias[:, None, None]
    torch.testing.assert_close(head([x]), expected, rtol=1e-5, atol=1e-5)
    assert head.dropout is None
