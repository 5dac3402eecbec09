"""attach(start='fixed'): a constant Gaussian on hosts, grids and backends; layers; alpha_scale."""

import copy
import itertools
import math
import pickle
from functools import partial

import pytest
import timm
import torch
from mmengine.registry import DefaultScope

import locat_mm
from locat_mm.layers import FixedGaussian, GaussianAugment
from locat_mm.ops import gaussian_attention
from locat_mm.registry import MODELS
from tests.support.hosts import OTHER_SIZES, build, features, image_size

#: One host per kind of attention layer.
KINDS = (
    *('timm-vit', 'timm-rope', 'timm-eva02', 'timm-beit', 'timm-swin'),
    *('mmpretrain-vit', 'mmpretrain-swin', 'mmpretrain-beit', 'mmpretrain-eva02'),
    *('mmpretrain-sam', 'mmseg-vit', 'mmseg-swin', 'mmseg-beit', 'mmseg-mae'),
)


def bias_by_hand(rows, columns, prefix, variance, alpha):
    """The formula, patch by patch, in float64."""
    patches = list(itertools.product(range(rows), range(columns)))
    bias = torch.zeros(prefix + len(patches), prefix + len(patches), dtype=torch.float64)
    for i, (y, x) in enumerate(patches):
        for j, (v, u) in enumerate(patches):
            sq_distance = (y - v) ** 2 + (x - u) ** 2
            bias[prefix + i, prefix + j] = alpha * math.exp(-sq_distance / (2 * (variance + 0.1)))
    return bias


@pytest.mark.parametrize('units', ['patches', 'image'])
@pytest.mark.parametrize('grid', [(4, 4), (2, 6), (8, 9)])
def test_equals_timm_with_the_bias_as_a_mask(grid, units):
    """The reference is timm's own block, which takes an additive mask."""
    settings = dict(model_name='vit_tiny_patch16_224', img_size=64, dynamic_img_size=True)
    host = timm.create_model(**settings, depth=3, embed_dim=48, num_heads=3).double().eval()
    images = torch.randn(2, 3, 16 * grid[0], 16 * grid[1], dtype=torch.float64)
    variances, alphas = [1.5, 4.0], [6.0, -2.0]
    scale = (min(grid) / 4) ** 2 if units == 'image' else 1.0
    with torch.no_grad():
        x = host.norm_pre(host._pos_embed(host.patch_embed(images)))
        masks = [
            bias_by_hand(*grid, 1, scale * v, a) for v, a in zip(variances, alphas, strict=True)
        ]
        for block, mask in zip(host.blocks, (None, *masks), strict=True):
            x = block(x, attn_mask=mask)
        expected = host.norm(x)
        locat_mm.attach(
            host,
            start='fixed',
            variance=variances,
            alpha=alphas,
            layers=slice(1, None),
            units=units,
        )
        for backend in ('naive', 'eager', 'chunked'):
            for block in host.blocks[1:]:
                block.attn.backend = backend
            found = host.forward_features(images)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', KINDS)
def test_equals_gaug_that_gives_these_constants(name):
    """On all hosts, also of GAug's own numbers; nothing is added, nothing is left."""
    host = build(name)
    image = torch.randn(2, 3, *image_size(name))
    others = [torch.randn(1, 3, *OTHER_SIZES[name])] if name in OTHER_SIZES else []
    with torch.no_grad():
        before = features(host, image)
    keys, modes = list(host.state_dict()), [p.requires_grad for p in host.parameters()]

    reference = locat_mm.attach(copy.deepcopy(host), start='paper')
    constants = []  # GAug's variance depends on the grid
    for gaug in (m for m in reference.modules() if isinstance(m, GaussianAugment)):
        gaug.log_var.weight.data.zero_()
        gaug.log_alpha.weight.data.zero_()
        gaug.log_var.bias.data.fill_(1.0)
        gaug.log_alpha.bias.data.fill_(3.0)
        gaug.register_forward_hook(
            lambda *call: constants.append((float(call[-1][0].mean()), float(call[-1][1].mean())))
        )
    with torch.no_grad():
        expected = features(reference, image)
    variance, alpha = zip(*constants, strict=True)
    locat_mm.attach(host, start='fixed', variance=variance, alpha=alpha)
    assert list(host.state_dict()) == keys
    assert [p.requires_grad for p in host.parameters()] == modes
    with torch.no_grad():
        found = features(host, image)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert (found - before).abs().max() > 1e-3
        for other in others:
            assert features(host, other).isfinite().all()
        twin = copy.deepcopy(host)
        torch.testing.assert_close(features(twin, image), found, rtol=0, atol=0)
        locat_mm.detach(host)
        torch.testing.assert_close(features(host, image), before, rtol=0, atol=0)
    assert list(host.state_dict()) == keys and not list(host.buffers()) == list(twin.buffers())
    # The host trains with the constants in place, as it does without them.
    features(twin, image).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in twin.parameters())


def test_expanded_constants_in_every_backend(monkeypatch):
    """Outputs and gradients of q, k, v equal those of constants that are written out."""
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    gaug = FixedGaussian((3, 4), 2.0, 5.0)
    q, k, v = torch.randn(3, 2, 2, 13, 16).unbind(0)
    variance, alpha = gaug(q, (3, 4), 1)
    assert variance.shape == (2, 2, 12, 2) and alpha.shape == (2, 2, 12)
    assert not variance.requires_grad and set(variance.stride()) == {0}
    results = []
    for backend, written_out in (
        *(('naive', True), ('naive', False), ('eager', False), ('chunked', False)),
        ('triton', False),
    ):
        constants = (variance, alpha)
        if written_out:
            constants = tuple(x.contiguous().requires_grad_() for x in constants)
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = gaussian_attention(*inputs, *constants, (3, 4), 1, backend=backend)
        out.square().sum().backward()
        results.append([out, *(x.grad for x in inputs)])
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_layers_of_every_start():
    for layers, expected in ((-1, [1]), ([1, 0], [0, 1]), (slice(None, -1), [0]), (None, [0, 1])):
        for start in ('identity', 'fixed'):
            constants = dict(variance=2, alpha=1) if start == 'fixed' else {}
            host = locat_mm.attach(build('timm-vit'), start=start, layers=layers, **constants)
            has = [i for i, block in enumerate(host.blocks) if hasattr(block.attn, 'gaug')]
            assert has == expected
    host = build('timm-vit')
    locat_mm.attach(host, start='fixed', variance=[2, 3], alpha=[5, 6], layers=[-1, 0])
    gaugs = [block.attn.gaug for block in host.blocks]
    assert [(g.variance.item(), g.alpha.item()) for g in gaugs] == [(3, 6), (2, 5)]
    assert 'variance=3, alpha=6' in repr(host)


def test_compiled_and_half():
    host = build('timm-vit')
    locat_mm.attach(host, start='fixed', variance=2.0, alpha=4.0, units='image')
    compiled = torch.compile(host, backend='aot_eager', fullgraph=True)
    x = torch.randn(1, 3, 32, 96)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), host(x), rtol=1e-4, atol=1e-5)
        expected = host(x)
        half = copy.deepcopy(host).to(torch.bfloat16)
        found = half(x.to(torch.bfloat16)).float()
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_alpha_scale():
    host = locat_mm.attach(build('timm-vit'), start='paper')
    scaled = locat_mm.attach(build('timm-vit'), start='paper', alpha_scale=2.5)
    assert list(scaled.state_dict()) == list(host.state_dict())
    scaled.load_state_dict(host.state_dict())
    q = torch.randn(1, 3, 17, 16)
    for block, twin in zip(host.blocks, scaled.blocks, strict=True):
        variance, alpha = block.attn.gaug(q, (4, 4), 1)
        other_variance, other_alpha = twin.attn.gaug(q, (4, 4), 1)
        torch.testing.assert_close(other_variance, variance, rtol=0, atol=0)
        torch.testing.assert_close(other_alpha, 2.5 * alpha)
    for kind in ('ViT', 'Swin', 'Jumbo', 'RoPEViT'):
        arch = dict(embed_dim=24, depth=1, num_heads=2)
        if kind == 'Swin':
            arch = dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2))
        cfg = dict(type=f'locat_mm.LocAt{kind}', arch=arch, img_size=32)
        plain, model = MODELS.build(cfg), MODELS.build(dict(cfg, alpha_scale=3))
        scales = {m.alpha_scale for m in model.modules() if isinstance(m, GaussianAugment)}
        assert scales == {3} and list(model.state_dict()) == list(plain.state_dict())
        for options in (dict(alpha_scale=-1), dict(alpha_scale=2, gaug=False)):
            with pytest.raises(ValueError, match='alpha_scale'):
                MODELS.build({**cfg, **options})


def test_in_a_config_and_from_a_file(tmp_path):
    vit = dict(type='locat_mm.TIMMBackbone', model_name='vit_tiny_patch16_224', depth=2)
    fixed = dict(type='locat_mm.LocAt', start='fixed', variance=4, alpha=[6, 3], backbone=vit)
    with DefaultScope.overwrite_default_scope('mmseg'):
        plain = MODELS.build(vit)
        torch.save(plain.state_dict(), tmp_path / 'plain.pth')
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'))
        host = MODELS.build(dict(fixed, init_cfg=init))
        host.init_weights()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(host.state_dict()[key], value, rtol=0, atol=0)
    assert [block.attn.gaug.alpha.item() for block in host.model.blocks] == [6, 3]


FIXED = dict(start='fixed', variance=4.0, alpha=6.0)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(FIXED, variance=0), ValueError, 'positive and finite, got 0'),
        (dict(FIXED, variance=-2.5), ValueError, 'positive and finite, got -2.5'),
        (dict(FIXED, variance=math.nan), ValueError, 'positive and finite, got nan'),
        (dict(FIXED, alpha=math.inf), ValueError, 'alpha must be finite, got inf'),
        (dict(FIXED, alpha=None), ValueError, 'needs variance and alpha, got alpha=None'),
        (dict(FIXED, variance=[1, 2, 3]), ValueError, '3 for 2 layers'),
        (dict(FIXED, alpha=[1, 2], layers=0), ValueError, '2 for 1 layers'),
        (dict(FIXED, units='pixels'), ValueError, "units 'pixels'; choose from patches, image"),
        (dict(FIXED, layers=2), ValueError, 'layers=2 is out of range: the model has 2'),
        (dict(FIXED, layers=[0, -3]), ValueError, r'\[0, -3\] is out of range'),
        (dict(FIXED, layers=slice(-5, None)), ValueError, 'out of range'),
        (dict(FIXED, layers=[0, -2]), ValueError, 'names a layer twice'),
        (dict(FIXED, layers=[]), ValueError, 'chooses none of the 2'),
        (dict(FIXED, layers='all'), TypeError, "indices or a slice, got 'all'"),
        (dict(FIXED, layers=[0.5]), TypeError, 'indices or a slice'),
        (dict(FIXED, alpha_scale=2.0), ValueError, "start='fixed' states alpha"),
        (dict(FIXED, train='gaug'), ValueError, 'has no parameter'),
        (dict(FIXED, kernel='rotated'), ValueError, 'has no correlation'),
        (dict(FIXED, gaug=False), ValueError, 'needs gaug=True'),
        (dict(alpha=6.0), ValueError, "alpha=6.0 needs start='fixed', got start='identity'"),
        (dict(start='paper', variance=1.0), ValueError, "variance=1.0 needs start='fixed'"),
        (dict(units='image'), ValueError, "units='image' needs start='fixed'"),
        (dict(alpha_scale=-1.0), ValueError, 'not negative, got -1.0'),
        (dict(alpha_scale=2.0, gaug=False), ValueError, 'alpha_scale needs gaug=True'),
        (dict(train='host'), ValueError, "train 'host'; choose from all, gaug"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_the_host_alone(options, error, message):
    host = build('timm-vit')
    kinds = [type(module) for module in host.modules()]
    with pytest.raises(error, match=message):
        locat_mm.attach(host, **options)
    assert [type(module) for module in host.modules()] == kinds
    assert not host.patch_embed._forward_hooks and 'train' not in vars(host)


def test_gaug_alone_trains():
    host = build('mmseg-vit', drop_rate=0.5)
    first = dict(host.named_parameters())['layers.0.attn.attn.out_proj.weight']
    first.requires_grad_(False)
    trainable = {name for name, p in host.named_parameters() if p.requires_grad}
    locat_mm.attach(host, train='gaug', layers=[1])
    assert host.train() is host and not any(module.training for module in host.modules())
    images = torch.randn(2, 3, 64, 64)
    before = {name: p.clone() for name, p in host.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in host.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        features(host, images).square().mean().backward()
        optimizer.step()
    changed = {name for name, p in host.state_dict().items() if not torch.equal(p, before[name])}
    assert changed and all(name.startswith('layers.1.attn.gaug.') for name in changed)

    twin = copy.deepcopy(host)
    twin.train()
    assert vars(twin)['train'].host is twin and not twin.training
    again = pickle.loads(pickle.dumps(host))
    again.train()
    assert not again.training

    locat_mm.detach(host)
    assert {name for name, p in host.named_parameters() if p.requires_grad} == trainable
    host.train()
    assert host.training


def test_gaug_in_stages_that_the_host_freezes_trains_too():
    host = locat_mm.attach(build('mmseg-swin', frozen_stages=1), train='gaug').train()
    trained = {name for name, p in host.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in host.named_parameters() if '.gaug.' in name}


def test_a_host_without_gradients_cannot_pass_them_on():
    cfg = dict(type='locat_mm.LocAtViT', arch='tiny', img_size=32, gaug=False, frozen=True)
    with pytest.raises(ValueError, match='build LocAtViT with frozen=False'):
        locat_mm.attach(MODELS.build(cfg), train='gaug')
    wrapped = partial(MODELS.build, dict(type='locat_mm.LocAt', train='gaug', backbone=cfg))
    with pytest.raises(ValueError, match='frozen=False'):
        wrapped()
