"""Every block of docs/hosts.md: built at full size, and trained for one step at a small size."""

import functools
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from locat_mm.config import load_config
from locat_mm.layers import GAugMixin

PAGE = (Path(__file__).parents[2] / 'docs/hosts.md').read_text()
SECTIONS = {part.partition('\n')[0]: part for part in re.split(r'^## ', PAGE, flags=re.M)[1:]}
BLOCKS = {
    f'{host}-{index}': block
    for host, part in SECTIONS.items()
    for index, block in enumerate(re.findall(r'```python\n(.*?)```', part, re.S))
}
SIZE = (64, 64)
WIDTH = 48


@pytest.fixture(params=BLOCKS.values(), ids=BLOCKS)
def cfg(request, tmp_path) -> Config:
    """As the user's file gives it, without what would be downloaded."""
    path = tmp_path / 'mine.py'
    path.write_text(request.param)
    cfg = load_config(str(path))
    init_default_scope(cfg.default_scope)
    cfg.model.pop('pretrained', None)
    host = cfg.model.backbone.backbone
    host.pop('init_cfg', None)
    if 'pretrained' in host:
        host.pretrained = False
    return cfg


def shrink(cfg: Config) -> None:
    """A width of a few channels, in place; depth and structure stay."""
    host, widths = cfg.model.backbone.backbone, [WIDTH] * 4
    cfg.model.data_preprocessor.size = SIZE
    if host.type == 'locat_mm.TIMMBackbone':
        host.update(embed_dim=WIDTH, num_heads=3, drop_path_rate=0.0)
    elif host.type == 'mmpretrain.ViTSAM':
        sizes = dict(embed_dims=WIDTH, num_layers=12, num_heads=3, feedforward_channels=96)
        host.update(arch=dict(sizes, global_attn_indexes=[2, 5, 8, 11]), img_size=64)
        host.update(window_size=3, drop_path_rate=0.0)
    elif host.type == 'SwinTransformer':
        host.update(embed_dims=24, num_heads=[1, 2, 2, 4], depths=[1, 1, 1, 1], drop_path_rate=0.0)
        widths = [24, 48, 96, 192]
    else:
        host.update(embed_dims=WIDTH, num_heads=3, img_size=SIZE, drop_path_rate=0.0)
    for part in [cfg.model.get('neck')] if cfg.model.get('neck') else []:
        part.update({name: WIDTH for name in ('embed_dim', 'out_channels') if name in part})
        if 'in_channels' in part:
            part.in_channels = widths
    cfg.model.decode_head.update(in_channels=widths, channels=16)
    cfg.model.auxiliary_head.update(in_channels=widths[2], channels=16)


def test_the_ten_hosts_are_there():
    assert list(SECTIONS) == [
        *('ViT', 'DeiT III', 'Swin', 'BEiT', 'CLIP', 'SigLIP', 'DINOv2', 'DINOv3', 'EVA-02', 'SAM')
    ]
    assert all(f'{host}-0' in BLOCKS for host in SECTIONS)


def test_each_builds_at_full_size(cfg, monkeypatch):
    # mmseg's hosts read the rates of stochastic depth from a tensor, which meta does not hold.
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    layers = [module for module in model.backbone.modules() if isinstance(module, GAugMixin)]
    assert len(layers) == 12 and all(layer.attached for layer in layers)


def test_each_trains_a_small_version(cfg):
    shrink(cfg)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    images = [torch.randint(256, (3, *SIZE), dtype=torch.uint8) for _ in range(2)]
    samples = []
    for _ in images:
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=torch.randint(150, (1, *SIZE)))))
        samples[-1].set_metainfo(dict(img_shape=SIZE, ori_shape=SIZE))
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    wrapper.backward(loss)
    gains = [p for name, p in model.named_parameters() if name.endswith('gaug.gain')]
    assert gains and all(gain.grad is not None and gain.grad.any() for gain in gains)
    wrapper.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
