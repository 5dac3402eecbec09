"""TIMMBackbone against timm itself, host by host."""

import pytest
import timm
import torch
from torch import nn

from locat_mm import attach
from locat_mm.models import TIMMBackbone
from locat_mm.registry import MODELS
from tests.support.timm_backbones import (
    HOSTS,
    SWIN,
    TINY,
    assert_close,
    every_host,
    make,
    make_image,
    make_theirs,
)

NUM_PREFIX = dict(dinov2=5, siglip=0, deit=2, dinov3=5, swin=0)  # else 1
NO_CLASS_TOKEN = ('siglip', 'swin')
#: What these pool is the mean patch; forward of the others gives other things.
POOL_PATCHES = ('eva02', 'beit', 'swin')
FC_NORM = ('eva02', 'beit')  # norm what is pooled, not the tokens


def out_types(host):
    never = ('cls_token',) if host in NO_CLASS_TOKEN else ()
    return [kind for kind in TIMMBackbone.OUT_TYPES if kind not in never]


@every_host
@torch.no_grad()
def test_last_output_is_timms(host):
    image, num_prefix = make_image(host), NUM_PREFIX.get(host, 1)
    for kind in out_types(host):
        ours = make(host, out_type=kind)
        theirs = make_theirs(host, ours)
        (out,) = ours(image)
        tokens = theirs.forward_features(image)
        tokens = tokens.flatten(1, -2)  # Swin's is a map, channels last
        patches = tokens[:, num_prefix:]
        if kind == 'raw':
            assert_close(out, tokens)
            assert ours.num_prefix_tokens == num_prefix
        elif kind == 'featmap':
            assert_close(out.flatten(2).mT, patches)
            reduction = theirs.feature_info[-1]['reduction']
            assert list(out.shape[-2:]) == [size // reduction for size in image.shape[-2:]]
        elif kind == 'cls_token':
            assert_close(out, getattr(theirs, 'fc_norm', nn.Identity())(tokens[:, 0]))
        else:
            theirs.reset_classifier(0)
            assert_close(out, theirs(image) if host in POOL_PATCHES else patches.mean(1))


@every_host
@torch.no_grad()
@pytest.mark.parametrize('final_norm', [False, True])
def test_outputs_of_blocks_are_timms(host, final_norm):
    ours = make(host, out_indices=[0, -1], out_type='featmap', final_norm=final_norm)
    theirs, image = make_theirs(host, ours), make_image(host)
    outputs = ours(image)
    expected, last = (
        theirs.forward_intermediates(image, [0, 2], norm=norm, intermediates_only=True)
        for norm in (False, final_norm)
    )
    assert_close(outputs[0], expected[0])
    assert_close(outputs[1], last[1])
    assert ours.out_channels == tuple(out.shape[1] for out in outputs)
    assert ours.embed_dims == outputs[-1].shape[1]
    assert (outputs[1] - expected[1]).abs().max() > 0.1 or not final_norm or host in FC_NORM


@torch.no_grad()
def test_a_class_token_of_an_earlier_block_is_not_normed():
    for host in ('vit', 'beit'):
        ours = make(host, out_indices=[1, 2], out_type='cls_token')
        theirs, image = make_theirs(host, ours), make_image(host)
        (_, prefix), _ = theirs.forward_intermediates(
            image, [1, 2], return_prefix_tokens=True, intermediates_only=True
        )
        assert_close(ours(image)[0], prefix[:, 0])


@torch.no_grad()
@pytest.mark.parametrize('host', ['vit', 'eva02', 'dinov3', 'swin'])
def test_sides_that_are_no_multiple_of_the_patch_are_padded(host):
    ours = make(host)
    theirs = make_theirs(host, ours)
    image = torch.randn(1, 3, 61, 93)
    padded = nn.functional.pad(image, (0, 3, 0, 3))
    (expected,) = theirs.forward_intermediates(padded, 1, norm=True, intermediates_only=True)
    assert_close(ours(image)[0], expected)


def test_sizes_that_a_host_cannot_take_are_refused_by_timm():
    with pytest.raises(AssertionError, match="Input width.* doesn't match model"):
        make('beit')(torch.randn(1, 3, 32, 40))
    with pytest.raises(AssertionError, match="Input width.* doesn't match model"):
        make('vit', dynamic_img_size=False)(torch.randn(1, 3, 32, 40))
    with pytest.raises(AssertionError, match='should be divisible by patch size'):
        make('vit', dynamic_img_pad=False)(torch.randn(1, 3, 32, 41))


@every_host
def test_a_seed_gives_timms_weights(host):
    name, small = HOSTS[host]
    torch.manual_seed(3)
    ours = make(host).model.state_dict()
    torch.manual_seed(3)
    theirs = timm.create_model(name, **small).state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@every_host
def test_every_trainable_parameter_gets_a_gradient(host):
    """Or DistributedDataParallel would hang."""
    image = make_image(host, 1)
    cases = [dict(out_type=kind) for kind in out_types(host)]
    cases += [dict(out_indices=[0]), dict(final_norm=False), dict(grad_checkpointing=True)]
    for case in cases:
        model = attach(make(host, **case)).train()
        sum(out.square().sum() for out in model(image)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad and parameter.grad is not None, (case, name)


@pytest.mark.parametrize('host', ['vit', 'eva02', 'swin'])
def test_recomputing_gives_the_same_gradients(host):
    stored, recomputed, image = make(host), make(host, grad_checkpointing=True), make_image(host)
    recomputed.load_state_dict(stored.state_dict())
    for model, num_runs in ((stored, 1), (recomputed, 2)):
        runs = []
        attn = next(m for n, m in model.named_modules() if n.endswith('blocks.0.attn'))
        attn.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        model(image)[0].square().sum().backward()
        assert len(runs) == num_runs
    for ours, expected in zip(recomputed.parameters(), stored.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


@every_host
def test_frozen_survives_train_and_builds_no_graph(host):
    options = dict(drop_path_rate=0.9) if host != 'beit' else dict(pos_drop_rate=0.9)
    name, small = HOSTS[host]
    model = TIMMBackbone(name, frozen=True, **{**small, **options})
    assert not any(m.training for m in model.modules())
    holder = nn.ModuleList([model]).train()
    assert not any(m.training for m in holder[0].modules())
    assert not any(p.requires_grad for p in model.parameters())
    image = make_image(host).requires_grad_()
    first, second = model(image)[0], model(image)[0]
    assert not first.requires_grad and torch.equal(first, second)


# LocAt around it


@every_host
@torch.no_grad()
def test_locat_starts_where_the_host_stands(host):
    plain, image = make(host), make_image(host)
    make_theirs(host, plain)
    name, small = HOSTS[host]
    backbone = dict(type='locat_mm.TIMMBackbone', model_name=name, **small)
    locat = MODELS.build(dict(type='locat_mm.LocAt', backbone=backbone)).eval()
    missing, unexpected = locat.load_state_dict(plain.state_dict(), strict=False)
    assert missing and all('.gaug.' in key for key in missing) and not unexpected
    assert_close(locat(image)[0], plain(image)[0])
    for key, parameter in locat.named_parameters():
        if '.gaug.' in key:
            parameter += 1.0
    assert (locat(image)[0] - plain(image)[0]).abs().max() > 1e-3


def test_gaug_enters_the_blocks_that_run_only():
    model = attach(make('vit', out_indices=[0, 1]))
    assert {key.split('.')[2] for key in model.state_dict() if '.gaug.' in key} == {'0', '1'}


# Mistakes


@pytest.mark.parametrize(
    'model_name, kwargs, message',
    [
        ('resnet18', {}, 'resnet18 is a ResNet, which has no attention'),
        ('vit_enormous', {}, "timm .* has no model 'vit_enormous'"),
        ('test_vit2', dict(out_type='cls_token'), 'test_vit2 gives no class token'),
        (HOSTS['swin'][0], dict(out_type='cls_token', **SWIN), 'gives no class token'),
        (HOSTS['siglip'][0], dict(out_type='cls_token', **TINY), 'siglip_224 gives no class token'),
        ('test_vit', dict(out_type='tokens'), "unknown out_type 'tokens'"),
        ('test_vit', dict(out_indices=6), r'out_indices=6 must be within 0\.\.5'),
        ('test_vit', dict(out_indices=[3, 1]), 'must be ascending'),
        ('test_vit', dict(num_classes=10), 'num_classes=10 is not for a backbone'),
        ('test_vit', dict(features_only=True), 'features_only=True is not for a backbone'),
        (
            'test_vit',
            dict(pretrained=True, init_cfg=dict(type='Pretrained', checkpoint='a.pth')),
            'both say where weights come from',
        ),
    ],
)
def test_mistakes_are_named(model_name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TIMMBackbone(model_name, **kwargs)


def test_a_wrong_option_is_timms_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'window'"):
        make('vit', window=7)


def test_a_file_is_not_for_pretrained():
    with pytest.raises(TypeError, match="must be a bool, got 'vit.pth'; files are for init_cfg"):
        make('vit', pretrained='vit.pth')


def test_a_host_without_forward_intermediates_is_named(monkeypatch):
    monkeypatch.delattr(timm.models.Beit, 'forward_intermediates')
    with pytest.raises(ValueError, match='is a Beit, which has no forward_intermediates'):
        TIMMBackbone('beitv2_base_patch16_224')
