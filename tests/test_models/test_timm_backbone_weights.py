"""Weights of TIMMBackbone: files of timm and of OpenMMLab, and what timm loads itself."""

import pytest
import torch
from safetensors.torch import save_file

from locat_mm import attach
from locat_mm.models import TIMMBackbone
from locat_mm.registry import MODELS
from tests.support.timm_backbones import (
    HOSTS,
    TINY,
    assert_close,
    every_host,
    make,
    make_theirs,
)


def save(state, path):
    save = save_file if path.suffix == '.safetensors' else torch.save
    save(state, path)
    return dict(type='Pretrained', checkpoint=str(path))


@every_host
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_file_of_timm_is_loaded(host, suffix, tmp_path):
    """With its head, and whatever else the outputs do not need."""
    theirs = make_theirs(host)
    init_cfg = save(theirs.state_dict(), tmp_path / f'timm{suffix}')
    for case in (dict(), dict(out_indices=[0], out_type='raw'), dict(final_norm=False)):
        ours = make(host, init_cfg=init_cfg, **case)
        ours.init_weights()
        expected = theirs.state_dict()
        for key, value in ours.model.state_dict().items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize('prefix', [None, 'backbone.', 'backbone.model'])
@pytest.mark.parametrize('locat', [False, True], ids=['plain', 'locat'])
def test_a_checkpoint_of_openmmlab_is_loaded(prefix, locat, tmp_path):
    def build(**kwargs):
        backbone = dict(type='locat_mm.TIMMBackbone', model_name=HOSTS['vit'][0], **kwargs)
        return MODELS.build(dict(type='LocAt', backbone=backbone, gaug=locat))

    # Not square, but of as many patches as a square.
    small = {**TINY, 'img_size': (16, 64)}
    trained = build(**small)
    for parameter in trained.parameters():
        parameter.data.normal_()
    state = {f'backbone.{key}': value for key, value in trained.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(3, 24)
    init_cfg = save(dict(state_dict=state), tmp_path / 'epoch_1.pth')
    if prefix:
        init_cfg['prefix'] = prefix
    ours = build(out_indices=[0, 1], init_cfg=init_cfg, **small)
    ours.init_weights()
    own = ours.state_dict()
    assert any('.gaug.' in key for key in own) == locat
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in own.items())


def test_a_file_of_timm_under_locat_leaves_gaug_at_its_start(tmp_path):
    init_cfg = save(make_theirs('dinov2').state_dict(), tmp_path / 'timm.pth')
    name, small = HOSTS['dinov2']
    ours, theirs = attach(TIMMBackbone(name, init_cfg=init_cfg, **small)), make('dinov2')
    gaug = {key: value.clone() for key, value in ours.state_dict().items() if '.gaug.' in key}
    ours.init_weights()
    theirs.model.load_state_dict(torch.load(init_cfg['checkpoint'], weights_only=True), False)
    own, expected = ours.state_dict(), theirs.state_dict()
    assert gaug and all(torch.equal(own[key], value) for key, value in gaug.items())
    assert all(torch.equal(own[key], value) for key, value in expected.items())


def test_position_embeddings_are_resized_as_timm_does(tmp_path):
    theirs = make_theirs('dinov2')
    init_cfg = save(theirs.state_dict(), tmp_path / 'timm.pth')
    ours = make('dinov2', img_size=(48, 64), init_cfg=init_cfg)
    ours.init_weights()
    theirs.set_input_size((48, 64))
    assert_close(ours.model.pos_embed, theirs.pos_embed)


def test_files_that_do_not_fit_are_refused(tmp_path):
    init_cfg = save(make_theirs('vit').state_dict(), tmp_path / 'timm.pth')
    with pytest.raises(ValueError, match=r'does not fit VisionTransformer[\s\S]*reg_token'):
        make('dinov2', init_cfg=init_cfg).init_weights()
    with pytest.raises(ValueError, match=r'unexpected: blocks\.2\.'):
        make('vit', depth=2, init_cfg=init_cfg).init_weights()
    with pytest.raises(ValueError, match=r"no key that starts with 'backbone\.'"):
        make('vit', init_cfg={**init_cfg, 'prefix': 'backbone.'}).init_weights()
    partial = make_theirs('vit').state_dict()
    del partial['blocks.1.attn.qkv.weight']
    init_cfg = save(partial, tmp_path / 'partial.pth')
    with pytest.raises(ValueError, match=r'missing: blocks\.1\.attn\.qkv\.weight'):
        make('vit', init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('host', ['vit', 'siglip', 'swin'])
def test_what_timm_has_loaded_stays(host, tmp_path):
    """pretrained=True, with a file in the place of the hub; mmengine initialises afterwards."""
    theirs = make_theirs(host)
    save(theirs.state_dict(), tmp_path / 'timm.safetensors')
    overlay = dict(file=str(tmp_path / 'timm.safetensors'), input_size=(3, 32, 32))
    ours = make(host, pretrained=True, pretrained_cfg_overlay=overlay)
    assert ours.is_init  # or a frozen one would be called random
    ours.init_weights()
    own = ours.model.state_dict()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in own.items())


def test_other_initialisers_are_mmengines():
    model = make('vit', init_cfg=dict(type='Constant', layer='Linear', val=0.5))
    model.init_weights()
    assert (model.model.blocks[1].mlp.fc1.weight == 0.5).all()
    assert (model.model.pos_embed != 0.5).all()
