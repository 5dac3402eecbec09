"""Weights of three channels in models of other channels, against timm's own adaptation."""

import logging

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from timm.models._manipulate import adapt_input_conv

import locat_mm
from locat_mm.checkpoint import check_fit, load_official, watch_pretrained
from locat_mm.registry import MODELS
from tests.support.checkpoints import build, segmentor_cfg
from tests.support.golden import Golden

KEY = 'patch_embed.proj.weight'
SMALL = dict(embed_dim=24, depth=1, num_heads=2)
BACKBONES = {
    'LocAtViT': dict(arch=SMALL, patch_size=8),
    'LocAtRoPEViT': dict(arch=SMALL, patch_size=8),
    'LocAtJumbo': dict(arch=SMALL, patch_size=8, num_jumbo_tokens=2),
    'LocAtSwin': dict(arch=dict(embed_dim=16, depths=(1, 1), num_heads=(1, 2))),
}


@pytest.fixture
def logged(monkeypatch):
    """Lines of the log of checkpoints."""
    lines: list[str] = []
    monkeypatch.setattr(
        locat_mm.checkpoint.adapting, 'print_log', lambda text, *rest: lines.append(text)
    )
    return lines


@pytest.mark.parametrize('kind', BACKBONES)
def test_every_number_of_channels(kind, logged, tmp_path):
    cfg = dict(type=f'locat_mm.{kind}', img_size=32, **BACKBONES[kind])
    state = MODELS.build(cfg).state_dict()
    file = tmp_path / 'weights.pth'
    torch.save(state, file)
    for channels in (1, 2, 3, 4, 13) if kind == 'LocAtViT' else (1, 3, 4):
        init = dict(type='Pretrained', checkpoint=str(file))
        model = MODELS.build({**cfg, 'in_channels': channels, 'init_cfg': init})
        model.init_weights()
        loaded = model.state_dict()
        expected = adapt_input_conv(channels, state[KEY])
        assert torch.equal(loaded.pop(KEY), expected)
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())
        assert model(torch.rand(1, channels, 32, 32))[0].isfinite().all()
    said = [line.rpartition(' channels ')[2] for line in logged]
    assert said[0] == 'summed for 1' and 'repeated and scaled by 3/4 for 4' in said
    assert not any(line.endswith('for 3') for line in said)


def test_the_authors_weights_in_whole_models(logged):
    """Equal images in all channels give the outputs of the three-channel model."""
    golden = Golden('locatvit')
    model = build(segmentor_cfg(golden, in_channels=6))
    load_official(model, golden.state_dict)
    size = golden.sizes[0]
    images = golden[f'in/{size}'].repeat(1, 2, 1, 1)
    torch.testing.assert_close(model.backbone(images)[0], golden[f'seg1/{size}'], rtol=0, atol=1e-5)
    assert len(logged) == 1


def test_started_from_and_not_resumed(logged):
    """A start (load_from) adapts; a test or a resumed run must fit."""
    golden = Golden('locatvit')
    state = build(segmentor_cfg(golden)).state_dict()
    other = build(segmentor_cfg(golden, in_channels=4))
    fitted = check_fit(other, state, 'the file', strict=False, whole=False)
    key = f'backbone.{KEY}'
    assert torch.equal(fitted.state[key], adapt_input_conv(4, state[key]))
    with pytest.raises(ValueError, match='in_channels: 3 in the file, 4 in the model'):
        check_fit(other, state, 'the file')


def test_back_to_three_and_to_one(logged):
    cfg = dict(type='locat_mm.LocAtViT', img_size=32, **BACKBONES['LocAtViT'])
    four = MODELS.build({**cfg, 'in_channels': 4})
    one = MODELS.build({**cfg, 'in_channels': 1})
    load_official(one, four.state_dict())
    weight = four.state_dict()[KEY]
    torch.testing.assert_close(one.state_dict()[KEY], weight.sum(dim=1, keepdim=True))


@pytest.mark.parametrize('package', ['mmseg', 'mmpretrain'])
def test_hosts_of_other_packages(package, logged, tmp_path):
    """With LocAt attached, in a run of our tools."""
    host = dict(
        type=f'{package}.SwinTransformer',
        embed_dims=16,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
        window_size=7,
    )
    if package == 'mmpretrain':
        host = dict(
            type='mmpretrain.SwinTransformer',
            arch=dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2]),
            img_size=32,
            out_indices=(1,),
        )
    torch.manual_seed(0)
    state = MODELS.build(host).state_dict()
    file = tmp_path / 'host.pth'
    torch.save(dict(state_dict=state), file)
    init = dict(type='Pretrained', checkpoint=str(file))
    given = {**host, 'in_channels': 4, 'init_cfg': init}

    class Whole(BaseModule):
        def __init__(self):
            super().__init__()
            self.backbone = MODELS.build(dict(type='locat_mm.LocAt', backbone=given))

    model = Whole()
    watch_pretrained(model)
    model.init_weights()
    key = 'patch_embed.projection.weight'
    assert torch.equal(model.backbone.state_dict()[key], adapt_input_conv(4, state[key]))
    assert len(logged) == 1


def test_timm_backbone(tmp_path, monkeypatch):
    kwargs = dict(embed_dim=24, depth=1, num_heads=2, img_size=32)
    theirs = timm.create_model('vit_tiny_patch16_224', **kwargs)
    file = tmp_path / 'vit.pth'
    torch.save(theirs.state_dict(), file)
    cfg = dict(type='locat_mm.TIMMBackbone', model_name='vit_tiny_patch16_224', **kwargs)
    expected = adapt_input_conv(4, theirs.state_dict()[KEY])
    init = dict(type='Pretrained', checkpoint=str(file))
    ours = MODELS.build({**cfg, 'in_channels': 4, 'init_cfg': init})
    ours.init_weights()
    assert torch.equal(ours.model.state_dict()[KEY], expected)
    lines: list[str] = []
    module = locat_mm.models.backbones.timm_backbone
    monkeypatch.setattr(module, 'print_log', lambda text, *rest: lines.append(text))
    overlay = dict(file=str(file), num_classes=1000)
    ours = MODELS.build(
        {**cfg, 'in_channels': 4, 'pretrained': True, 'pretrained_cfg_overlay': overlay}
    )
    assert torch.equal(ours.model.state_dict()[KEY], expected)
    assert lines == ['patch_embed.proj: filters of 3 channels repeated and scaled by 3/4 for 4']
    with pytest.raises(ValueError, match='in_channels=4 and in_chans=2 differ'):
        MODELS.build({**cfg, 'in_channels': 4, 'in_chans': 2})


def test_models_by_timms_names(tmp_path, caplog):
    kwargs = dict(embed_dim=24, depth=1, num_heads=2, img_size=32)
    source = timm.create_model('locatvit_tiny', **kwargs).state_dict()
    file = tmp_path / 'ours.pth'
    torch.save(source, file)
    with caplog.at_level(logging.INFO):
        model = timm.create_model(
            'locatvit_tiny',
            pretrained=True,
            in_chans=4,
            pretrained_cfg_overlay=dict(file=str(file)),
            **kwargs,
        )
    assert torch.equal(model.state_dict()[KEY], adapt_input_conv(4, source[KEY]))


def test_channels_of_a_config():
    find = locat_mm.config.image_channels
    assert find(Config(dict(backbone=dict(type='X'))).to_dict()) == 3
    inner = dict(type='locat_mm.TIMMBackbone', in_chans=5)
    assert find(dict(backbone=dict(type='locat_mm.LocAt', backbone=inner))) == 5
