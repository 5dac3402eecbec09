"""Pretrained models by name, of timm and of mmpretrain, with a cache in place of the hub."""

import mmpretrain
import pytest
import timm
import torch
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load

from locat_mm.checkpoint import read_state_dict
from locat_mm.models import mmpretrain_names
from locat_mm.registry import MODELS
from tests.support.checkpoints import COMMIT, assert_logits
from tests.support.golden import Golden

REPO = 'sinahmr/locatvit_tiny'
CLASSIFIER = 'locatvit-tiny_in1k'


def small_timm(golden, **overlay) -> torch.nn.Module:
    """``locatvit_tiny`` with the widths of the golden weights, which stand for the authors'."""
    theirs = golden.meta['kwargs']
    args = {key: theirs[key] for key in ('embed_dim', 'depth', 'num_heads', 'num_classes')}
    args.update(img_size=theirs['img_size'], patch_size=theirs['patch_size'])
    overlay.setdefault('num_classes', theirs['num_classes'])
    return timm.create_model('locatvit_tiny', True, pretrained_cfg_overlay=overlay, **args)


def small_mmpretrain(golden, pretrained=True, name=CLASSIFIER) -> torch.nn.Module:
    backbone = golden.backbone_cfg()
    backbone['arch']['_delete_'] = True
    head = dict(num_classes=7, in_channels=24)
    return mmpretrain.get_model(
        name, pretrained, backbone=backbone, neck=dict(num_heads=3), head=head
    )


def test_timm_loads_the_authors_weights(golden, hub):
    hub.add(REPO, golden.state_dict)
    assert_logits(small_timm(golden), golden)


def test_the_name_is_a_source_of_weights_and_a_backbone(hub):
    weights = timm.create_model('locatvit_tiny').state_dict()
    hub.add(REPO, weights)
    state = read_state_dict('timm:locatvit_tiny')
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    cfg = dict(type='locat_mm.TIMMBackbone', model_name='locatvit_tiny', pretrained=True)
    backbone = MODELS.build(dict(cfg, out_indices=[2, 11]))
    assert torch.equal(backbone.model.cls_token, weights['cls_token'])
    assert [m.shape for m in backbone(torch.randn(1, 3, 64, 48))] == [(1, 192, 4, 3)] * 2
    with pytest.raises(TypeError, match='already'):
        MODELS.build(dict(type='locat_mm.LocAt', backbone=cfg))


def test_timm_takes_a_revision_or_a_file(golden, hub):
    other = {key: torch.zeros_like(value) for key, value in golden.state_dict.items()}
    path = hub.add(REPO, golden.state_dict)
    hub.add(REPO, other, commit='f' * 40, revision='old')
    assert not small_timm(golden, hf_hub_id=f'{REPO}@old').head.weight.any()
    assert_logits(small_timm(golden, hf_hub_id=f'{REPO}@{COMMIT}'), golden)
    hub.folder.rename(hub.folder.with_name('elsewhere'))
    moved = path.parents[4] / 'elsewhere' / path.relative_to(hub.folder)
    assert_logits(small_timm(golden, file=str(moved)), golden)


def test_timm_offline_says_how_to_place_the_file(golden, hub):
    with pytest.raises(FileNotFoundError) as caught:
        timm.create_model('locatvit_base', pretrained=True)
    message = str(caught.value)
    assert 'model.safetensors of hf-hub:sinahmr/locatvit_base is not in the cache' in message
    assert '`hf download sinahmr/locatvit_base`' in message
    place = "create_model('locatvit_base', pretrained=True, pretrained_cfg_overlay=dict(file='PATH'"
    assert place in message
    with pytest.raises(FileNotFoundError, match='--revision v1`'):
        small_timm(golden, hf_hub_id=f'{REPO}@v1')


def test_weights_of_another_width_are_refused_by_timm(golden, hub):
    hub.add(REPO, golden.state_dict)
    with pytest.raises(RuntimeError, match='size mismatch for cls_token'):
        timm.create_model('locatvit_tiny', pretrained=True)
    hub.add('a/plain', Golden('vit').state_dict)
    with pytest.raises(RuntimeError, match=r'Missing key[^$]*gaug'):
        small_timm(golden, hf_hub_id='a/plain')


def test_mmpretrain_lists_the_classifiers(root):
    names = mmpretrain.list_models('*locat*')
    configs = {path.stem for path in (root / 'configs/locat').glob('*_imagenet.py')}
    assert {ModelHub.get(name).config.filename.split('/')[-1][:-3] for name in names} == configs
    assert len(names) == len(configs) == 15 and CLASSIFIER in names
    assert mmpretrain.list_models('*locat*', task='Image Classification') == names
    assert mmpretrain.list_models('vit-base*')
    mmpretrain_names.register()  # again: nothing happens
    assert mmpretrain.list_models('*locat*') == names


def test_the_index_is_found_in_an_installation_and_in_a_clone(tmp_path):
    package = tmp_path / 'locat_mm'
    with pytest.raises(FileNotFoundError, match='no configs/locat/classifiers.yml in .*mim or'):
        mmpretrain_names.find_root(package)
    for root in (tmp_path, package / '.mim'):
        (root / 'configs/locat').mkdir(parents=True)
        (root / 'configs/locat/classifiers.yml').touch()
        assert mmpretrain_names.find_root(package) == root


def test_the_two_indexes_agree(root):
    mim = {model.config: model for model in load(str(root / 'model-index.yml')).models}
    for model in load(str(root / 'configs/locat/classifiers.yml')).models:
        other = mim[model.config]
        assert other.name.replace('_', '-', 1).replace('_imagenet', '_in1k') == model.name
        (result,) = model.results
        expected = other.results[0].metrics if other.results else {}
        assert (result.task, result.metrics) == ('Image Classification', expected)


def test_mmpretrain_loads_the_authors_weights(golden, hub):
    hub.add(REPO, golden.state_dict)
    model = small_mmpretrain(golden)
    assert_logits(model, golden)
    assert len(model._dataset_meta['classes']) == 1000
    assert not torch.equal(small_mmpretrain(golden, False).head.fc.bias, model.head.fc.bias)
    other = {key: torch.zeros_like(value) for key, value in golden.state_dict.items()}
    hub.add(REPO, other, commit='f' * 40, revision='old')
    assert not small_mmpretrain(golden, f'mmpretrain:hf-hub:{REPO}@old').head.fc.weight.any()


def test_mmpretrain_offline_says_how_to_place_the_file(golden, hub):
    with pytest.raises(FileNotFoundError, match=f'`hf download {REPO}`'):
        small_mmpretrain(golden)
    with pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'):
        small_mmpretrain(golden, name='locatvit-small_in1k')


def test_weights_under_the_names_of_mmpretrain(golden, hub, tmp_path):
    hub.add(REPO, golden.state_dict)
    state = read_state_dict(f'mmpretrain:hf-hub:{REPO}')
    assert set(state) == set(golden.classifier().state_dict())
    pooled = Golden('locatvit_gap')
    hub.add('a/gap', pooled.state_dict)
    assert 'neck.norm.weight' in read_state_dict('mmpretrain:hf-hub:a/gap')
    hub.add('a/plain', Golden('vit_gap').state_dict)
    assert 'backbone.fc_norm.weight' in read_state_dict('mmpretrain:hf-hub:a/plain')
    hub.add('a/own', state)
    with pytest.raises(ValueError, match="hf-hub:a/own already has OpenMMLab's names"):
        read_state_dict('mmpretrain:hf-hub:a/own')
