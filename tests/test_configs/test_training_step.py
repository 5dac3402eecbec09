"""One training step of every distinct model and task kind, at small size."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from locat_mm.registry import MODELS as REGISTRY
from tests.support.shipped import ABLATION, MODELS, leaf, load, shrink

#: The three data sets of linear decoding share their models.
KINDS = ('imagenet', 'ade20k', 'upernet_ade20k', 'upernet_frozen_ade20k')
CASES = [(model, kind) for model in MODELS for kind in KINDS]
CASES += [(row, kind) for row in ABLATION for kind in KINDS[:2]]


def batch(cfg: Config) -> dict:
    """Two random images with labels, as the data loader hands them over."""
    if cfg.default_scope == 'mmpretrain':
        images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
        return dict(inputs=images, data_samples=[DataSample().set_gt_label(i) for i in (0, 999)])
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = []
    for _ in images:
        mask = PixelData(data=torch.randint(cfg.num_classes, (1, 64, 64)))
        sample = SegDataSample(gt_sem_seg=mask)
        sample.set_metainfo(dict(img_shape=(64, 64), ori_shape=(64, 64)))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


@pytest.mark.parametrize('model, task', CASES)
def test_one_step(model, task):
    name = leaf(model, 'tiny', task)
    overrides = shrink(name)
    if task != 'imagenet':
        overrides['model.data_preprocessor.size'] = (64, 64)
    cfg = load(name, overrides)
    # mmengine's Runner does the same in a single process.
    net = revert_sync_batchnorm(REGISTRY.build(cfg.model))
    net.init_weights()
    net.train()
    settings = Config(dict(wrapper={**cfg.optim_wrapper, 'type': 'OptimWrapper'}))
    wrapper = build_optim_wrapper(net, settings.wrapper)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    trains = {name for name, p in net.named_parameters() if p.requires_grad}
    logged = net.train_step(batch(cfg), wrapper)
    assert logged['loss'].isfinite()
    for name, parameter in net.named_parameters():
        assert parameter.isfinite().all(), name
        if name not in trains:
            assert torch.equal(parameter, before[name]), name
    changed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    # A frozen backbone stays; otherwise its first layer and the head learn.
    assert any('head' in name for name in changed)
    is_frozen = task != 'imagenet' and task != 'upernet_ade20k'
    assert any(name.startswith('backbone.') for name in trains) != is_frozen
    if task == 'upernet_ade20k' or (task == 'imagenet' and 'jumbo' not in model):
        assert 'backbone.patch_embed.proj.weight' in changed
