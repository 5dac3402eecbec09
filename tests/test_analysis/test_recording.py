"""What is recorded, against float64 in NumPy and against the hosts themselves."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

import locat_mm
from locat_mm.analysis import Recorder, class_tokens, find_layers
from locat_mm.analysis.structure import window_patches
from locat_mm.models import PatchRepresentationRefinement
from tests.support.backbones import FAMILIES, build
from tests.support.hosts import HOSTS, OTHER_SIZES, image_size
from tests.support.hosts import build as build_host

WINDOWED = ('timm-swin', 'mmpretrain-swin', 'mmseg-swin', 'mmpretrain-sam')


def record(model, images, **options):
    with Recorder(model, **options) as recorder, torch.no_grad():
        model(images)
    return recorder


def keep_io(module):
    """Lists that a module's first argument and output are put into."""
    inputs, outputs = [], []
    module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    module.register_forward_hook(lambda _, args, output: outputs.append(output))
    return inputs, outputs


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def naive_layer(attn, tokens, grid, num_prefix):
    """Attention [heads, N, N], variance [heads, H·W, 2], alpha [heads, H·W] of tokens [N, C]."""
    weight, bias = (p.detach().double().numpy() for p in (attn.qkv.weight, attn.qkv.bias))
    qkv = (tokens.double().numpy() @ weight.T + bias).reshape(len(tokens), 3, attn.num_heads, -1)
    gaug = {k: v.double().numpy() for k, v in attn.gaug.state_dict().items()}
    ceiling, (rows, columns) = max(grid) ** 2, grid
    attention, variances, alphas = [], [], []
    for head in range(attn.num_heads):
        q, k = qkv[:, 0, head], qkv[:, 1, head]
        patches = q[num_prefix:]
        logit = patches @ gaug['log_var.weight'].T + gaug['log_var.bias']
        variance = ceiling / (1 + np.exp(-logit + np.log(ceiling - 1)))
        strength = patches @ gaug['log_alpha.weight'].T + gaug['log_alpha.bias']
        alpha = np.log1p(np.exp(strength))[:, 0]
        logits = q @ k.T / np.sqrt(q.shape[1])
        for p in range(rows * columns):
            for t in range(rows * columns):
                down, right = p // columns - t // columns, p % columns - t % columns
                exponent = down**2 / (variance[p, 0] + 0.1) + right**2 / (variance[p, 1] + 0.1)
                logits[num_prefix + p, num_prefix + t] += alpha[p] * np.exp(-exponent / 2)
        attention.append(softmax(logits))
        variances.append(variance)
        alphas.append(alpha)
    return np.stack(attention), np.stack(variances), np.stack(alphas)


@pytest.mark.parametrize('family', ['vit', 'regvit', 'jumbo', 'vit-gap'])
def test_equals_float64_line_by_line(family):
    model = build(family)
    inputs = [keep_io(block.attn)[0] for block in model.blocks]
    outputs = [keep_io(block)[1] for block in model.blocks]
    images = torch.randn(1, 3, 24, 40)
    records = record(model, images, head_limit=10**6, features=True).records()
    prefix = model.num_prefix_tokens
    for block, layer, (tokens,), (out,) in zip(model.blocks, records, inputs, outputs, strict=True):
        of_heads = naive_layer(block.attn, tokens[0], (3, 5), prefix)
        given = (layer.head_attention[:, 0], layer.head_variance, layer.head_alpha)
        for values, expected in zip(given, of_heads, strict=True):
            expected = expected.reshape(values.shape)
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(layer.features.flatten(0, 1), out[0, prefix:])
        attention, variance, alpha = (values.mean(0) for values in of_heads)
        assert layer.grid_size == (3, 5)
        np.testing.assert_allclose(layer.attention[0], attention, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.sigma.reshape(15, 2) ** 2, variance, rtol=1e-4)
        np.testing.assert_allclose(layer.alpha.flatten(), alpha, rtol=1e-4)
        row = attention[prefix + 8, prefix:].reshape(3, 5)
        np.testing.assert_allclose(layer.attention_of(1, 3), row, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('family', FAMILIES)
def test_similarity_equals_numpy(family):
    model = build(family, gaug=False)
    blocks = [layer.block for layer in find_layers(model)]
    outputs = [keep_io(block)[1] for block in blocks]
    records = record(model, torch.randn(1, 3, 24, 40)).records()
    if family in ('swin', 'vit-gap'):
        assert all(layer.similarity is None for layer in records)
        return
    num_class, num_prefix = {'jumbo': (3, 3), 'regvit': (1, 5)}.get(family, (1, 1))
    for layer, (tokens,) in zip(records, outputs, strict=True):
        tokens = tokens[0].double().numpy()
        tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
        expected = (tokens[num_prefix:] @ tokens[:num_class].T).mean(-1).reshape(3, 5)
        np.testing.assert_allclose(layer.similarity, expected, atol=1e-5)
        assert layer.sigma is None and layer.alpha is None


@pytest.mark.parametrize('name', HOSTS)
def test_attached_and_plain_hosts(name):
    """A host's own weights, and those of GAug's layer where its bias is next to nothing."""
    host, images = build_host(name), torch.randn(1, 3, *OTHER_SIZES.get(name, image_size(name)))
    plain = record(host, images)
    locat_mm.attach(host)
    attached = record(host, images)
    assert attached.num_class_tokens == plain.num_class_tokens
    for before, after in zip(plain.records(), attached.records(), strict=True):
        assert before.grid_size == after.grid_size and before.sigma is None
        torch.testing.assert_close(before.attention.sum(-1), torch.ones(before.attention.shape[:2]))
        torch.testing.assert_close(after.attention, before.attention, rtol=1e-3, atol=1e-5)
        assert after.variance.shape == (*after.grid_size, 2)
        assert after.variance.isfinite().all() and after.alpha.isfinite().all()
        assert (before.similarity is None) == (plain.num_class_tokens == 0)


@pytest.mark.parametrize('name', WINDOWED)
def test_windows_are_the_hosts(name):
    """The tokens of every window are those patches of the map before it was cut."""
    host = build_host(name)
    layers = [layer for layer in find_layers(host) if layer.is_windowed]
    maps = [keep_io(getattr(layer.block, 'ln1', None) or layer.block.norm1) for layer in layers]
    windows = [keep_io(layer.attn)[0] for layer in layers]
    records = record(host, torch.randn(1, 3, *OTHER_SIZES.get(name, (112, 112)))).records()
    records = [r for r in records if r.name in {layer.name for layer in layers}]
    assert len(records) == (1 if name == 'mmpretrain-sam' else 4)
    for seen, (_, (normed, *_)), (cut, *_) in zip(records, maps, windows, strict=True):
        normed = normed.reshape(-1, normed.shape[-1])
        padded = torch.cat((normed, torch.zeros_like(normed[:1])))  # -1 is the last
        torch.testing.assert_close(cut.flatten(1, -2), padded[seen.patches], rtol=0, atol=0)
        numbers = seen.patches[seen.patches >= 0]
        assert sorted(numbers.tolist()) == list(range(seen.grid_size[0] * seen.grid_size[1]))


def test_heads_and_features_of_windows():
    """Features are those behind the block; heads of windows have the mean that is recorded."""
    model = build('swin', img_size=(24, 40))
    outputs = [keep_io(layer.block)[1] for layer in find_layers(model)]
    images = torch.randn(1, 3, 24, 40)
    records = record(model, images, head_limit=10**6, features=True).records()
    for layer, (out,) in zip(records, outputs, strict=True):
        torch.testing.assert_close(layer.head_attention.mean(0), layer.attention)
        torch.testing.assert_close(layer.head_variance.mean(0), layer.variance)
        assert torch.equal(layer.features, out[0])
    limit = records[0].head_attention.numel() - 1
    fewer = record(model, images, head_limit=limit).records()
    assert fewer[0].head_attention is None and fewer[0].head_alpha is None
    assert fewer[0].features is None


def test_attention_in_a_window():
    model = build('swin', img_size=(24, 40))
    layer = record(model, torch.randn(1, 3, 24, 40)).records()[0]
    assert layer.grid_size == (6, 10)  # windows of 3×3: two columns are padded
    inside = ~layer.attention_of(1, 4).isnan()
    assert inside[:3, 3:6].all() and inside.sum() == 9
    assert layer.attention_of(1, 4).nansum().item() == pytest.approx(1, abs=1e-6)
    assert layer.attention_of(0, 9).nansum() < 0.999
    for patch in ((6, 0), (0, 10), (-1, 0)):
        with pytest.raises(ValueError, match=f'patch \\({patch[0]}, {patch[1]}\\) is outside'):
            layer.attention_of(*patch)


@pytest.mark.parametrize('pool', ['cls_token', 'prefix', 'avg'])
def test_refinement_is_prrs(pool):
    """The weights of what the head reads, applied to the tokens, give what the head reads."""
    heads, model = 3, torch.nn.Module()
    model.backbone = build('jumbo' if pool == 'prefix' else 'vit', out_type='raw')
    prefix = model.backbone.num_prefix_tokens
    model.neck = PatchRepresentationRefinement(heads, pool, prefix)
    tokens, images = [], torch.randn(1, 3, 24, 40)
    model.neck.register_forward_pre_hook(lambda _, args: tokens.append(args[0][0]))
    with Recorder(model) as recorder, torch.no_grad():
        (read,) = model.neck(model.backbone(images))
    weights = recorder.refinement()
    assert weights.shape == (prefix + 15,)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    x = tokens[0][0].double().numpy().reshape(prefix + 15, heads, -1)
    per_head = np.stack([softmax(h @ h.T / np.sqrt(h.shape[1])) for h in x.transpose(1, 0, 2)])
    rows = dict(cls_token=slice(1), prefix=slice(prefix), avg=slice(prefix, None))[pool]
    np.testing.assert_allclose(weights, per_head[:, rows].mean((0, 1)), atol=1e-5)
    refined = np.einsum('hqk,khd->qhd', per_head[:, rows], x).reshape(-1, 24)
    expected = refined.mean(0) if pool == 'avg' else refined.reshape(-1)
    np.testing.assert_allclose(read[0], expected, rtol=1e-4, atol=1e-5)


def test_nothing_stays_behind():
    model = build('vit', attention_backend='chunked')
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    images = torch.randn(1, 3, 24, 40)
    with torch.no_grad():
        expected = model(images)[0]
        with Recorder(model):
            torch.testing.assert_close(model(images)[0], expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match='smaller than a patch'), Recorder(model):
            model(images[..., :4])
        assert [block.attn.backend for block in model.blocks] == ['chunked'] * 2
        torch.testing.assert_close(model(images)[0], expected, rtol=0, atol=0)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_errors():
    with pytest.raises(ValueError, match='ResNet has no attention layer to look into'):
        Recorder(resnet18())
    model, images = build('vit'), torch.randn(1, 3, 24, 40)
    with pytest.raises(ValueError, match='LocAtViT has not run inside'):
        Recorder(model).records()
    with pytest.raises(ValueError, match='test_cfg.mode=whole'), Recorder(model):
        model(images)
        model(images)


def test_layers_and_tokens():
    model = build('swin')
    names = [layer.name for layer in find_layers(model)]
    assert names == [f'layers.{i}.blocks.{j}.attn' for i in (0, 1) for j in (0, 1)]
    assert class_tokens(model) == (0, 0)
    shifted = window_patches(find_layers(model)[1], (6, 10))
    assert shifted.shape == (8, 9) and (shifted < 0).sum() == 8 * 9 - 60
