"""Rotated kernels in the models: they start as the axis-aligned ones, and load their weights."""

import pytest
import timm
import torch
from torch import nn

import locat_mm
from locat_mm import load_official
from locat_mm.analysis import Recorder, record_gaug_statistics
from locat_mm.checkpoint import check_fit, fitting
from locat_mm.layers import GaussianAugment, GaussianAugmentedAttention
from locat_mm.ops.gaussian_parameters import MAX_CORRELATION
from locat_mm.registry import MODELS
from tests.support import hosts
from tests.support.backbones import FAMILIES, build
from tests.support.golden import Golden

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def correlations(model):
    return {key: x for key, x in model.state_dict().items() if '.gaug.correlation.' in key}


def tilt(model):
    for name, parameter in model.named_parameters():
        if '.gaug.correlation.' in name:
            parameter.data.copy_(torch.randn_like(parameter))


@pytest.mark.parametrize('family', FAMILIES)
def test_axis_aligned_weights_load_with_equal_outputs(family):
    aligned, rotated = build(family), build(family, kernel='rotated')
    new = correlations(rotated)
    assert rotated.state_dict().keys() - aligned.state_dict().keys() == new.keys()
    layers = [m for m in rotated.modules() if isinstance(m, GaussianAugment)]
    widths = [layer.log_var.weight.shape[1] for layer in layers]
    assert sum(x.numel() for x in new.values()) == sum(width + 1 for width in widths)
    assert all(x.any() for x in new.values())  # build() has moved them
    assert not rotated.load_state_dict(aligned.state_dict()).missing_keys
    assert not any(x.any() for x in correlations(rotated).values())
    outputs = [model(IMAGES)[0] for model in (aligned, rotated)]
    size = max(1.0, outputs[0].abs().max().item())
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6 * size)
    outputs[1].square().sum().backward()
    moved = {n for n, p in rotated.named_parameters() if p.grad is not None and p.grad.any()}
    assert new.keys() <= moved
    tilt(rotated)
    assert (rotated(IMAGES)[0] - outputs[0]).abs().max() > 1e-5


@pytest.mark.parametrize('name', ['locatvit', 'locatjumbo', 'locatswin', 'locatvit_rope_mixed'])
def test_the_authors_weights_load_with_their_outputs(name):
    golden = Golden(name)
    model = golden.classifier(kernel='rotated')
    tilt(model)
    load_official(model, golden.state_dict)
    assert correlations(model) and not any(x.any() for x in correlations(model).values())
    size = golden.sizes[0]
    logits = model(golden[f'in/{size}'])
    torch.testing.assert_close(logits, golden[f'logits/{size}'], rtol=0, atol=1e-5)


def test_a_seed_gives_both_kernels_the_same_other_weights():
    states = []
    for kernel in ('axis', 'rotated'):
        torch.manual_seed(3)
        states.append(MODELS.build(dict(type='locat_mm.LocAtViT', arch='tiny', kernel=kernel)))
    aligned, rotated = (model.state_dict() for model in states)
    assert all(torch.equal(x, rotated[key]) for key, x in aligned.items())
    assert not any(x.any() for x in correlations(states[1]).values())


def test_what_is_missing_is_said_once_and_what_is_too_much_is_explained(monkeypatch):
    aligned, rotated = build('vit'), build('vit', kernel='rotated')
    lines = []
    monkeypatch.setattr(fitting, 'print_log', lambda line, *rest: lines.append(line))
    rotated.load_state_dict(check_fit(rotated, aligned.state_dict(), 'the file').state)
    assert len(lines) == 1
    assert 'LocAtViT has rotated ones: blocks.[0-1].attn.gaug.correlation.weight' in lines[0]
    with pytest.raises(ValueError, match=r"rotated kernels .*: set kernel='rotated'"):
        check_fit(aligned, rotated.state_dict(), 'the file')
    state = rotated.state_dict()
    del state['blocks.0.attn.gaug.correlation.bias']
    with pytest.raises(ValueError, match='missing: blocks.0.attn.gaug.correlation.bias'):
        check_fit(rotated, state, 'the file')
    with pytest.raises(RuntimeError, match='Missing key.* "blocks.0.attn.gaug.correlation.bias"'):
        rotated.load_state_dict(state)


@pytest.mark.parametrize('name', ['timm-vit', 'timm-dinov3', 'mmpretrain-vit', 'mmseg-swin'])
def test_attached_and_detached(name):
    host = hosts.build(name)
    image, keys = torch.randn(1, 3, *hosts.image_size(name)), list(host.state_dict())
    with torch.no_grad():
        before = hosts.features(host, image)
        locat_mm.attach(host, start='paper', kernel='rotated')
        after = hosts.features(host, image)
        tilt(host)
        assert (hosts.features(host, image) - after).abs().max() > 1e-6
    assert correlations(host)
    locat_mm.detach(host)
    assert list(host.state_dict()) == keys
    with torch.no_grad():
        torch.testing.assert_close(hosts.features(host, image), before)


def test_names_of_timm_and_the_wrapper():
    small = dict(embed_dim=48, depth=2, num_heads=3, num_classes=5, img_size=32, patch_size=8)
    aligned = timm.create_model('locatvit_tiny', **small)
    rotated = timm.create_model('locatvit_tiny', kernel='rotated', **small)
    rotated.load_state_dict(aligned.state_dict())
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(rotated.eval()(x), aligned.eval()(x), rtol=0, atol=1e-6)
    host = dict(type='locat_mm.TIMMBackbone', model_name='vit_tiny_patch16_224', depth=1)
    wrapped = MODELS.build(dict(type='locat_mm.LocAt', backbone=host, kernel='rotated'))
    assert correlations(wrapped)


def test_mistakes_are_named():
    for kind in (GaussianAugment, lambda d, g, **kw: GaussianAugmentedAttention(d, 2, g, **kw)):
        with pytest.raises(ValueError, match="unknown kernel 'round'; choose from axis, rotated"):
            kind(8, (2, 3), kernel='round')
    for kind in (
        lambda **kw: build('vit', **kw),
        lambda **kw: locat_mm.attach(timm.create_model('vit_tiny_patch16_224', depth=1), **kw),
    ):
        with pytest.raises(ValueError, match="kernel='rotated' needs gaug=True"):
            kind(gaug=False, kernel='rotated')
        with pytest.raises(ValueError, match="unknown kernel 'round'"):
            kind(kernel='round')


def test_the_correlation_by_the_formula_on_any_grid():
    gaug = GaussianAugment(8, (4, 4), kernel='rotated')
    tilt(nn.ModuleDict(dict(attn=nn.ModuleDict(dict(gaug=gaug)))))
    q = torch.randn(2, 3, 21, 8)
    weight, bias = gaug.correlation.weight[0], gaug.correlation.bias
    expected = 0.95 * torch.tanh((q[:, :, 1:] * weight).sum(-1) + bias)
    for grid in ((4, 5), (2, 10)):
        variance, alpha, correlation = gaug(q, grid, 1)
        assert variance.shape == (2, 3, 20, 2) and alpha.shape == correlation.shape == (2, 3, 20)
        torch.testing.assert_close(correlation, expected)
    assert MAX_CORRELATION == 0.95 and gaug(q.half(), (4, 5), 1)[2].dtype == torch.float32


@pytest.mark.parametrize('family', ['vit', 'swin'])
def test_what_is_recorded(family):
    """Σ of a layer is the mean of the heads' Σ; the angle is that of its longest eigenvector."""
    model = build(family, kernel='rotated')
    kept = []
    for module in model.modules():
        if isinstance(module, GaussianAugment):
            module.register_forward_hook(lambda m, args, out: kept.append(out))
    with torch.no_grad(), Recorder(model) as recorder, record_gaug_statistics(model) as means:
        model(IMAGES[:1])
    passes = zip(list(kept), means.values(), strict=True)
    for record, ((variance, _, rho), mean) in zip(recorder.records(), passes, strict=True):
        assert mean[0].shape == (4,) and mean[0][3] == pytest.approx(rho.abs().mean().item())
        if family == 'vit':
            covariance = (rho * variance.prod(-1).sqrt()).mean(1)[0]
            torch.testing.assert_close(record.covariance.flatten(), covariance)
        rows, columns = record.variance[1, 2].tolist()
        across = record.covariance[1, 2].item()
        matrix = torch.tensor([[columns, across], [across, rows]], dtype=torch.double)
        x, y = torch.linalg.eigh(matrix).eigenvectors[:, -1]
        angle = torch.atan(y / x).rad2deg()
        assert record.angle[1, 2].item() == pytest.approx(angle.item(), abs=1e-2)
        assert record.correlation.nan_to_num().abs().max() < 1
