"""attach and detach on hosts of timm, mmpretrain and mmseg."""

import copy
import io
from functools import partial

import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models.utils.attention import MultiheadAttention
from torch import nn

import locat_mm
from locat_mm.layers import SUPPORTED
from locat_mm.registry import MODELS
from tests.support.hosts import HOSTS, OTHER_SIZES, build, features, image_size

# Only class tokens are read: no gradient reaches the patches of the last block.
READ_CLASS_TOKENS = {
    *('timm-vit', 'timm-deit-distilled', 'timm-clip', 'timm-dinov2', 'timm-rope'),
    *('mmpretrain-vit', 'mmpretrain-clip', 'mmpretrain-deit', 'mmpretrain-deit3'),
    'mmpretrain-eva02',
}


@pytest.mark.parametrize('name', HOSTS)
def test_starts_where_the_host_stands_and_departs(name):
    host = build(name)
    images = [torch.randn(2, 3, *image_size(name))]
    if name in OTHER_SIZES:
        images.append(torch.randn(1, 3, *OTHER_SIZES[name]))
    with torch.no_grad():
        before = [features(host, x) for x in images]
    keys, kind = list(host.state_dict()), type(host)

    assert locat_mm.attach(host) is host and type(host) is kind
    new = [key for key in host.state_dict() if key not in keys]
    assert [key for key in host.state_dict() if key in keys] == keys
    assert new and all('.gaug.' in key for key in new)
    with torch.no_grad():
        for x, expected in zip(images, before, strict=True):
            torch.testing.assert_close(features(host, x), expected, rtol=0, atol=1e-4)

    features(host, images[0]).square().sum().backward()
    reached = {n for n, p in host.named_parameters() if p.grad is not None and p.grad.any()}
    unreached = set(new) - reached
    if name in READ_CLASS_TOKENS:
        last = max(new).partition('.gaug.')[0]
        assert unreached == {key for key in new if key.startswith(f'{last}.gaug.')}
    else:
        assert not unreached

    for key, parameter in host.named_parameters():
        if key.endswith('.gaug.gain'):
            parameter.data.fill_(5.0)
    with torch.no_grad():
        augmented = features(host, images[0])
        twin = features(copy.deepcopy(host), images[0])
    assert (augmented - before[0]).abs().max() > 1e-5
    torch.testing.assert_close(twin, augmented, rtol=0, atol=0)

    # The weights travel to another host with GAug; taken off, the host is what it was.
    file = io.BytesIO()
    torch.save(host.state_dict(), file)
    file.seek(0)
    other = locat_mm.attach(build(name))
    other.load_state_dict(torch.load(file))
    with torch.no_grad():
        torch.testing.assert_close(features(other, images[0]), augmented, rtol=0, atol=0)
        locat_mm.detach(host)
        torch.testing.assert_close(features(host, images[0]), before[0], rtol=0, atol=0)
    assert list(host.state_dict()) == keys
    assert not any(module._forward_hooks for module in host.modules())


def test_every_supported_layer_is_met():
    kinds = set()
    for name in HOSTS:
        modules = build(name).modules()
        kinds |= {f'{type(m).__module__}.{type(m).__qualname__}' for m in modules}
    assert kinds >= set(SUPPORTED)


@pytest.mark.parametrize('name', ['timm-vit', 'mmpretrain-vit', 'mmseg-vit', 'timm-beit'])
def test_equals_the_model_that_is_built_with_gaug(name):
    """Held to the authors' numbers, LocAtViT is the reference for GAug on other hosts."""
    reference = MODELS.build(
        dict(
            type='locat_mm.LocAtViT',
            arch=dict(embed_dim=48, depth=2, num_heads=3),
            img_size=64,
            out_type='raw',
            final_norm=False,
        )
    ).eval()
    sizes = {} if name == 'timm-vit' else dict(img_size=64)
    host = build(name, **(dict(img_size=(64, 64)) if name == 'mmseg-vit' else sizes))
    locat_mm.attach(host, start='paper', grid_size=(4, 4))
    layers = [m for m in host.modules() if hasattr(m, 'gaug')]
    for layer, block in zip(layers, reference.blocks, strict=True):
        layer.gaug.load_state_dict(block.attn.gaug.state_dict())
        ours = block.attn
        inner = getattr(layer, 'attn', layer)
        if isinstance(inner, nn.MultiheadAttention):
            pairs = (inner.in_proj_weight, inner.in_proj_bias), inner.out_proj
        elif hasattr(layer, 'q_bias'):
            layer.relative_position_bias_table.data.zero_()
            bias = torch.cat((layer.q_bias, layer.k_bias, layer.v_bias))
            pairs = (layer.qkv.weight, bias), layer.proj
        else:
            pairs = (layer.qkv.weight, layer.qkv.bias), layer.proj
        (weight, bias), proj = pairs
        ours.qkv.load_state_dict(dict(weight=weight, bias=bias))
        ours.proj.load_state_dict(proj.state_dict())
        tokens = torch.randn(2, 17, 48)
        host.patch_embed(torch.randn(2, 3, 64, 64))
        out = layer(tokens, identity=torch.zeros(1)) if 'mmseg' in name else layer(tokens)
        torch.testing.assert_close(out, ours(tokens, grid_size=(4, 4)), rtol=1e-5, atol=1e-5)


def test_without_gaug_nothing_is_touched():
    host = build('timm-vit')
    modules = [(name, type(module)) for name, module in host.named_modules()]
    assert locat_mm.attach(host, gaug=False) is host
    assert [(name, type(module)) for name, module in host.named_modules()] == modules
    assert not host.patch_embed._forward_hooks


def test_a_frozen_layer_has_a_frozen_gaug():
    host = build('mmpretrain-vit', frozen_stages=1)
    locat_mm.attach(host)
    first, second = (layer.attn.gaug for layer in host.layers)
    assert not any(p.requires_grad for p in first.parameters())
    assert all(p.requires_grad for p in second.parameters())


def test_the_host_may_initialise_itself_again():
    host = locat_mm.attach(build('mmseg-vit'), start='paper')
    gaug = host.layers[0].attn.gaug
    gaug.log_alpha.bias.data.fill_(3.0)
    host.init_weights()  # goes over all nn.Linear
    assert gaug.log_alpha.bias.item() == 3.0


def test_mixed_precision_and_checkpointing_over_several_sizes():
    host = locat_mm.attach(build('timm-vit'), start='paper').train()
    images = [torch.randn(2, 3, *size) for size in ((64, 64), (32, 96))]
    grads = []
    for checkpointing in (False, True):
        host.set_grad_checkpointing(checkpointing)
        host.zero_grad()
        sum(host(x).square().sum() for x in images).backward()
        grads.append([p.grad.clone() for p in host.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)
    host.zero_grad()
    with torch.autocast('cpu', torch.bfloat16):
        out = host(images[0])
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in host.parameters())


@pytest.mark.parametrize('name', ['timm-vit', 'mmseg-vit'])
def test_grids_that_a_checkpointed_backward_cannot_tell_apart(name):
    """mmseg's layers checkpoint the older way, which runs the forward without gradients."""
    host = build(name, **({} if name == 'timm-vit' else dict(with_cp=True)))
    locat_mm.attach(host).train()
    if name == 'timm-vit':
        host.set_grad_checkpointing(True)
    wide, high = torch.randn(1, 3, 32, 96), torch.randn(1, 3, 96, 32)
    for x in (wide, high, wide):  # one after the other is fine
        features(host, x).square().sum().backward()
    with pytest.raises(ValueError, match='2×6 and 6×2 patches'):
        (features(host, wide).sum() + features(host, high).sum()).backward()
    with torch.no_grad():
        features(host, wide)
        features(host, high)
    features(host, wide).square().sum().backward()


def test_compiled_as_one_graph_and_checkpointed():
    host = locat_mm.attach(build('timm-vit'), start='paper')
    host.set_grad_checkpointing(True)
    compiled = torch.compile(host, backend='aot_eager', dynamic=False, fullgraph=True)
    for size in ((32, 96), (96, 32)):
        x = torch.randn(1, 3, *size)
        grads = []
        for model in (host, compiled):
            host.zero_grad()
            model(x).square().sum().backward()
            grads.append([p.grad.clone() for p in host.parameters()])
        for eager, traced in zip(*grads, strict=True):
            torch.testing.assert_close(eager, traced, rtol=1e-3, atol=1e-4)


class Unsupported(nn.Module):
    """What attach meets elsewhere."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 48, 16)
        self.attn = MultiheadAttention(48, 3)


@pytest.mark.parametrize(
    ('make', 'options', 'error', 'message'),
    [
        (partial(build, 'timm-vit'), dict(start='identiy'), ValueError, 'identiy.*paper, identity'),
        (partial(build, 'timm-vit'), dict(attention_backend='x'), ValueError, "'x'; available"),
        (
            partial(build, 'timm-vit'),
            dict(gaug=False, attention_backend='eager'),
            ValueError,
            'needs gaug=True',
        ),
        (partial(build, 'timm-vit'), dict(grid_size=(0, 4)), ValueError, r'1×1, got \(0, 4\)'),
        (partial(build, 'timm-swin'), dict(grid_size=(7, 7)), ValueError, 'in windows'),
        (partial(timm.create_model, 'resnet18'), {}, TypeError, 'no attention layer'),
        (
            partial(timm.create_model, 'swinv2_tiny_window8_256'),
            {},
            TypeError,
            r'layers.0.blocks.0.attn is a WindowAttention of timm.models.swin_transformer_v2; '
            r'GAug supports .*timm.models.eva.EvaAttention',
        ),
        (Unsupported, {}, ValueError, 'Conv2d, which does not tell the grid'),
        (partial(nn.Sequential, MultiheadAttention(48, 3)), {}, ValueError, 'Sequential has 0'),
        (
            partial(nn.Sequential, MultiheadAttention(3, 1, v_shortcut=True)),
            {},
            ValueError,
            'v_shortcut=False',
        ),
        (
            lambda: nn.ModuleList([build('timm-vit'), build('timm-vit')]),
            {},
            ValueError,
            'ModuleList has 2: 0.patch_embed, 1.patch_embed',
        ),
        (lambda: locat_mm.attach(build('timm-vit')), {}, TypeError, 'attn has GAug already'),
    ],
)
def test_what_cannot_be_is_said_and_leaves_the_host_alone(make, options, error, message):
    host = make()
    keys = list(host.state_dict())
    with pytest.raises(error, match=message):
        locat_mm.attach(host, **options)
    assert list(host.state_dict()) == keys


def test_detach_needs_an_attached_host():
    with pytest.raises(TypeError, match='VisionTransformer has no GAug'):
        locat_mm.detach(build('timm-vit'))
    built = MODELS.build(dict(type='locat_mm.LocAtViT', arch='tiny', img_size=32))
    with pytest.raises(TypeError, match='is built with GAug; build it with gaug=False'):
        locat_mm.detach(built)


def test_patches_that_are_dropped_or_merged_are_an_error():
    host = locat_mm.attach(build('timm-vit', patch_drop_rate=0.5)).train()
    with pytest.raises(ValueError, match=r'8 patches.*4×4.*none dropped'):
        host(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize('scope', ['mmseg', 'mmpretrain'])
@pytest.mark.parametrize('prefix', ['', 'locat_mm.'], ids=['bare', 'scoped'])
def test_as_a_config(scope, prefix):
    cfg = dict(type=f'{prefix}LocAt', backbone=HOSTS[f'{scope}-vit'][1], start='paper')
    with DefaultScope.overwrite_default_scope(scope):
        host = MODELS.build(cfg)
    assert type(host).__module__.startswith(scope) and type(host).__name__ == 'VisionTransformer'
    assert host.layers[0].attn.gaug.gain is None
    with pytest.raises(TypeError, match="a config with a type, got 'vit'"):
        MODELS.build(dict(type='locat_mm.LocAt', backbone='vit'))
