"""The shipped DINO configs: they build, and their recipe is the authors'."""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS

from locat_mm.registry import MODELS
from tests.support.shipped import CONFIGS, load

FULL = ('dino/vit_small_dino.py', 'dino/locatvit_small_dino.py')
DEMO = ('demo/dino/vit_dino.py', 'demo/dino/locatvit_dino.py')


def test_there_are_no_others():
    assert {name for name in CONFIGS if 'dino' in name.split('/')} == {*FULL, *DEMO}


@pytest.mark.parametrize('name', [*FULL, *DEMO])
def test_builds(name):
    cfg = load(name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    with DATASETS.switch_scope_and_registry(None) as registry:
        assert registry.get(cfg.train_dataloader.dataset.type)
    has_locat = 'locat' in name
    assert cfg.model.backbone.gaug == has_locat == model.with_neck
    assert cfg.model.backbone.get('drop_path_rate') == (0.1 if name in FULL else None)
    # AMP needs an accelerator.
    settings = Config(dict(wrapper={**cfg.optim_wrapper, 'type': 'OptimWrapper'}))
    optimizer = build_optim_wrapper(model, settings.wrapper).optimizer
    trained = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    handed = {trained[id(p)]: g for g in optimizer.param_groups for p in g['params']}
    assert len(handed) == len(trained) and not any(n.startswith('teacher.') for n in handed)
    for key, parameter in model.named_parameters():
        if key in handed:
            free = key.endswith('.bias') or parameter.ndim == 1
            assert handed[key]['weight_decay'] == (0.0 if free else 0.04), key
            assert handed[key]['lr'] == 1e-3


@pytest.mark.parametrize('name', [*FULL, *DEMO])
def test_crops(name):
    """Stock transforms alone, without reading a file."""
    cfg = load(name)
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    found = Compose(cfg.train_pipeline[1:])(dict(img=image, gt_label=0, img_path='x'))
    sides = [crop.shape for crop in found['inputs']]
    large, small, many = (224, 96, 8) if name in FULL else (48, 40, 2)
    assert sides == [(3, large, large)] * 2 + [(3, small, small)] * many
    assert all(crop.dtype == torch.uint8 for crop in found['inputs'])


@pytest.mark.parametrize('name', FULL)
def test_recipe(name):
    cfg = load(name)
    backbone, head, loss = cfg.model.backbone, cfg.model.head, cfg.model.loss
    assert (backbone.arch, backbone.patch_size, backbone.img_size) == ('small', 16, 224)
    assert (head.out_channels, head.hidden_channels, head.bottleneck_channels) == (65536, 2048, 256)
    assert (loss.teacher_temp, loss.student_temp, loss.center_momentum) == (0.04, 0.1, 0.9)
    assert cfg.model.base_momentum == pytest.approx(1 - 0.996)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 512
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(5e-4 * 512 / 256)
    assert cfg.optim_wrapper.get('clip_grad') is None
    assert cfg.custom_hooks == [dict(type='locat_mm.DINOHook', max_norm=3.0, frozen_epochs=1)]
    warmup, cosine, decay = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.eta_min, cfg.train_cfg.max_epochs) == (
        *(10, 10, 1e-6, 100),
    )
    assert decay.eta_min_ratio * cfg.optim_wrapper.optimizer.weight_decay == pytest.approx(0.4)
    views = cfg.train_pipeline[1]
    first, second, local = views.transforms
    assert views.num_views == [1, 1, 8]
    assert [tuple(p[0].crop_ratio_range) for p in views.transforms] == [
        *((0.4, 1.0), (0.4, 1.0), (0.05, 0.4)),
    ]
    assert all(p[0].interpolation == 'bicubic' for p in views.transforms)
    blurs = [[s.prob for s in p if s.type == 'GaussianBlur'] for p in views.transforms]
    assert blurs == [[1.0], [0.1], [0.5]]
    assert [s.prob for s in second if s.type == 'Solarize'] == [0.2]
    assert not any(s.type == 'Solarize' for s in [*first, *local])
