"""TIMMBackbone inside mmseg and mmpretrain: training, names and layer-wise decay."""

import mmpretrain.models
import mmseg.models
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from timm.optim import param_groups_layer_decay

from locat_mm import attach
from locat_mm.models import TIMMBackbone
from tests.support.timm_backbones import HOSTS, make, make_theirs


def train_once(model, inputs, samples):
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)
    assert losses['loss'].isfinite()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize('locat', [False, True], ids=['plain', 'locat'])
@pytest.mark.parametrize('host, frozen', [('dinov2', False), ('swin', False), ('siglip', True)])
def test_segmentor_trains(host, frozen, locat):
    name, small = HOSTS[host]
    backbone = dict(type='locat_mm.TIMMBackbone', model_name=name, out_indices=[0, 1, 2], **small)
    backbone['frozen'] = frozen
    if locat:
        backbone = dict(type='locat_mm.LocAt', backbone=backbone)
    channels = [8, 16, 32] if host == 'swin' else [24] * 3
    head = dict(
        **dict(type='UPerHead', in_channels=channels, in_index=[0, 1, 2], pool_scales=(1, 2)),
        **dict(channels=8, num_classes=3, norm_cfg=dict(type='BN')),
    )
    cfg = dict(
        type='EncoderDecoder', backbone=backbone, decode_head=head, test_cfg=dict(mode='whole')
    )
    cfg['data_preprocessor'] = dict(type='SegDataPreProcessor', size=(32, 48))
    init_default_scope('mmseg')
    model = MMSEG_MODELS.build(Config(cfg).to_dict())
    model.init_weights()
    samples = []
    for _ in range(2):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 32, 48))))
        sample.set_metainfo(dict(img_shape=(32, 48), ori_shape=(32, 48)))
        samples.append(sample)
    inputs = [torch.randn(3, 32, 48) for _ in samples]
    moved = train_once(model, inputs, samples)
    assert 'decode_head.conv_seg.weight' in moved
    assert any(name.startswith('backbone.') for name in moved) == (not frozen)
    assert any('.gaug.' in name for name in moved) == (locat and not frozen)
    logits = model.eval().encode_decode(torch.randn(1, 3, 45, 32), [dict(img_shape=(45, 32))])
    assert logits.shape == (1, 3, 45, 32)


@pytest.mark.parametrize('prr', [False, True], ids=['linear', 'prr'])
def test_classifier_trains(prr):
    name, small = HOSTS['dinov2']
    backbone = dict(type='locat_mm.TIMMBackbone', model_name=name, **small)
    backbone['out_type'] = 'raw' if prr else 'cls_token'
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='locat_mm.LocAt', backbone=backbone),
        neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=3) if prr else None,
        head=dict(type='LinearClsHead', num_classes=4, in_channels=24),
    )
    init_default_scope('mmpretrain')
    model = MMPRETRAIN_MODELS.build(Config(cfg).to_dict())
    model.init_weights()
    samples = [DataSample().set_gt_label(label) for label in (1, 3)]
    moved = train_once(model, torch.randn(2, 3, 32, 48), samples)
    first, last = (f'backbone.model.blocks.{i}.attn.gaug.' for i in (0, 2))
    assert any(name.startswith(first) for name in moved)
    assert any(name.startswith(last) for name in moved) == prr  # [CLS] alone gives it no gradient
    assert model.head(model.extract_feat(torch.randn(2, 3, 48, 32))).shape == (2, 4)
    assert model.get_layer_depth('backbone.model.cls_token')[0] == 0


@pytest.mark.parametrize(
    'registry, theirs',
    [
        (MMSEG_MODELS, mmseg.models.backbones.TIMMBackbone),
        (MMPRETRAIN_MODELS, mmpretrain.models.backbones.TIMMBackbone),
    ],
    ids=['mmseg', 'mmpretrain'],
)
def test_names(registry, theirs):
    assert registry.get('locat_mm.TIMMBackbone') is TIMMBackbone
    assert registry.get('TIMMBackbone') is theirs
    assert 'TIMMBackbone' not in ROOT_MODELS.module_dict
    # What is looked up for LocAt is what the config would get without it.
    built = registry.build(dict(type='TIMMBackbone', model_name='test_vit', pretrained=False))
    assert type(built) is theirs


@pytest.mark.parametrize('host', ['vit', 'dinov2', 'swin'])
def test_layer_depths_are_timms(host):
    """Layer-wise decay as timm's own, for a host with its head."""
    theirs, ours = make_theirs(host, num_classes=3), attach(make(host))
    groups = param_groups_layer_decay(theirs, layer_decay=0.5)
    names = {id(p): name for name, p in theirs.named_parameters()}
    scales = {names[id(p)]: group['lr_scale'] for group in groups for p in group['params']}
    for name, _ in ours.model.named_parameters():
        depth, total = ours.get_layer_depth(f'backbone.model.{name}', 'backbone.')
        layer = name.partition('.gaug.')[0]
        expected = {scale for key, scale in scales.items() if key.startswith(layer)}
        assert {0.5 ** (total - 1 - depth)} == expected, name
    assert ours.get_layer_depth('decode_head.conv.weight', 'backbone.') == (total - 1, total)
