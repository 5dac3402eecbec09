"""``locat_mm.LocAt`` in a config that inherits a stock one: wrong and right."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from locat_mm.config import config_path
from locat_mm.layers import GAugMixin

SWIN = (
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    dict(type='SwinTransformer', embed_dims=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]),
    ['attn_drop_rate', 'embed_dims', 'depths', 'num_heads', 'window_size'],
)
VIT = (
    'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py',
    dict(type='VisionTransformer', arch='deit-tiny', img_size=32),
    ['arch', 'img_size', 'patch_size'],
)
HOSTS = {'mmseg-swin': SWIN, 'mmpretrain-vit': VIT}


@pytest.fixture(params=HOSTS.values(), ids=HOSTS)
def host(request) -> tuple:
    return request.param


def read(folder, base: str, body: str) -> Config:
    path = folder / 'mine.py'
    path.write_text(f"_base_ = __import__('locat_mm').config_path('{base}')\n{body}\n")
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


def build(cfg: Config) -> torch.nn.Module:
    return MODELS.build(cfg.model.backbone)


def wrap(inner: str, **extra) -> str:
    given = ''.join(f'{key}={value!r}, ' for key, value in extra.items())
    return f"model = dict(backbone=dict({given}type='locat_mm.LocAt', backbone={inner}))"


@pytest.mark.parametrize('inner', ['written', 'inherited'])
def test_inherited_arguments_are_named_and_the_printed_lines_work(inner, host, tmp_path):
    base, backbone, inherited = host
    text = '_base_.model.backbone' if inner == 'inherited' else repr(backbone)
    with pytest.raises(TypeError) as caught:
        build(read(tmp_path, base, wrap(text)))
    message = str(caught.value)
    assert 'LocAt has no argument' in message
    assert all(re.search(rf'no argument [^;]*\b{name}\b', message) for name in inherited)
    lines = message[message.index('model = dict(') : message.index('\n\nbackbone=_base_')]
    assert f"backbone=dict(type='{backbone['type']}', ...)" in lines
    corrected = lines.replace(f"dict(type='{backbone['type']}', ...)", text)
    model = build(read(tmp_path, base, corrected))
    assert type(model).__name__ == backbone['type']
    assert any(isinstance(module, GAugMixin) for module in model.modules())
    assert f'backbone={"_base_.model.backbone"} keeps' in message


def test_the_other_lines_of_the_message_work(tmp_path):
    base = SWIN[0]
    inner = 'dict(_base_.model.backbone, drop_path_rate=0.1)'
    model = build(read(tmp_path, base, wrap(inner, _delete_=True)))
    assert any(isinstance(module, GAugMixin) for module in model.modules())


def test_a_forgotten_inner_backbone(tmp_path):
    body = "model = dict(backbone=dict(type='locat_mm.LocAt'))"
    with pytest.raises(TypeError, match=r'backbone=_base_\.model\.backbone,\n'):
        build(read(tmp_path, SWIN[0], body))
    with pytest.raises(TypeError, match='must be a config with a type, got None'):
        MODELS.build(dict(type='locat_mm.LocAt'))


def test_a_misspelt_argument():
    cfg = dict(type='locat_mm.LocAt', backbone=VIT[1], strat='paper', grid_sise=(2, 2))
    with pytest.raises(TypeError, match="Did you mean 'grid_size' for 'grid_sise', 'start' for"):
        MODELS.build(cfg)


def test_init_cfg_and_pretrained_from_outside(tmp_path):
    host = dict(type='mmpretrain.VisionTransformer', arch='deit-tiny', img_size=32)
    init = dict(type='Pretrained', checkpoint='a.pth')
    cfg = dict(type='locat_mm.LocAt', init_cfg=init)
    with torch.device('meta'):
        assert MODELS.build(dict(cfg, backbone=host)).init_cfg == init
        assert MODELS.build(dict(cfg, backbone=dict(host, init_cfg=init))).init_cfg == init
        inner = dict(host, init_cfg=dict(type='Pretrained', checkpoint='b.pth'))
        with pytest.raises(ValueError, match=r'(?s)init_cfg is given twice.*_delete_=True'):
            MODELS.build(dict(cfg, backbone=inner))


def test_an_inherited_init_cfg_alone(tmp_path):
    """A base whose backbone has nothing but a type and an ``init_cfg``: nothing is ambiguous."""
    base = tmp_path / 'base.py'
    base.write_text(
        "default_scope = 'mmpretrain'\n"
        "model = dict(backbone=dict(type='VisionTransformer', init_cfg=dict(type='Pretrained', "
        "checkpoint='a.pth')))"
    )
    mine = tmp_path / 'mine.py'
    mine.write_text(
        "_base_ = './base.py'\n" + wrap("dict(type='VisionTransformer', arch='deit-tiny')")
    )
    cfg = Config.fromfile(mine)
    init_default_scope(cfg.default_scope)
    assert build(cfg).init_cfg.checkpoint == 'a.pth'


def test_the_stock_configs_are_there():
    assert all(config_path(base) for base, _, _ in HOSTS.values())
