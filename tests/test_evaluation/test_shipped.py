"""The shipped configs of linear, k-NN and in-context evaluation."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, LOOPS, METRICS, TRANSFORMS
from mmpretrain.structures import DataSample

from locat_mm.registry import MODELS
from tests.support.shipped import CONFIGS, load

#: But not configs/foundation, which tests/test_configs/test_foundation.py builds.
IN_CONTEXT = [name for name in CONFIGS if re.search(r'^in_context/|^demo/in_context_', name)]
LINEAR = [name for name in CONFIGS if name.endswith('_linear.py') or '/linear_' in name]
KNN = [name for name in CONFIGS if 'dino' in name.split('/')]


def test_there_are_configs():
    assert (len(IN_CONTEXT), len(LINEAR), len(KNN)) == (22, 4, 4)


def check_data(*loaders: Config) -> None:
    for loader in loaders:
        for step in loader.dataset.pipeline:
            TRANSFORMS.build(step)
        with DATASETS.switch_scope_and_registry(None) as registry:
            assert registry.get(loader.dataset.type)


@pytest.mark.parametrize('name', IN_CONTEXT)
def test_in_context(name):
    cfg = load(name)
    backbone = cfg.model.backbone
    assert backbone.frozen and not backbone.final_norm and backbone.init_cfg.type == 'Pretrained'
    assert (cfg.model.get('num_neighbours'), cfg.model.get('temperature')) == (30, 0.02)
    assert backbone.gaug == ('locat' in name)
    bank = cfg.test_cfg.bank_dataloader
    check_data(bank, cfg.test_dataloader)
    steps = [
        [step.type for step in loader.dataset.pipeline] for loader in (bank, cfg.test_dataloader)
    ]
    if 'demo' not in name:
        # The bank's masks are resized; the ground truth is not.
        assert steps[0].index('LoadAnnotations') < steps[0].index('Resize')
        assert steps[1].index('Resize') < steps[1].index('LoadAnnotations')
        resize = bank.dataset.pipeline[steps[0].index('Resize')]
        assert tuple(resize.scale) == (224, 224) and not resize.get('keep_ratio', False)
        assert bank.dataset.pipeline[1].get('reduce_zero_label', False) == ('ade20k' in name)
        dataset = dict(ade20k=('ADE20KDataset', 150), voc=('PascalVOCDataset', 21))
        task = name.removesuffix('.py').rpartition('_')[2]
        assert (bank.dataset.type, cfg.model.num_classes) == dataset[task]
    side = backbone.img_size
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        # Swin's last two stages merge to patches of 16 and 32: stage 2 has ViT's.
        assert model._features(torch.empty(1, 3, side, side)).shape[2:] == (
            (6, 6) if 'demo' in name else (14, 14)
        )
    dino = 'dino' in name
    assert backbone.init_cfg.get('prefix') == (
        'teacher.module.backbone.' if dino else 'backbone.' if 'demo' in name else None
    )


@pytest.mark.parametrize('name', LINEAR)
def test_linear(name):
    """A step trains the classifier alone; the backbone is in eval mode and drops no path."""
    cfg = load(name)
    backbone = cfg.model.backbone
    assert backbone.init_cfg.prefix == 'teacher.module.backbone.'
    check_data(cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    if 'demo' not in name:
        assert cfg.optim_wrapper.optimizer.lr == 1e-3 * 8 * cfg.train_dataloader.batch_size / 256
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0].T_max == 100
        crops = [step.type for step in cfg.train_dataloader.dataset.pipeline]
        assert crops[2:4] == ['RandomResizedCrop', 'RandomFlip'] and len(crops) == 5
    backbone.init_cfg = None
    backbone.arch = dict(embed_dim=24, depth=2, num_heads=2)
    backbone.drop_path_rate = 0.5
    cfg.model.head.in_channels = 24
    assert ('neck' in cfg.model) == ('locat' in name)  # the class token after PRR
    if 'neck' in cfg.model:
        cfg.model.neck.num_heads = 2
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    trained = [p for group in wrapper.optimizer.param_groups for p in group['params']]
    assert {id(p) for p in trained} == {id(p) for p in model.head.parameters()}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randint(256, (2, 3, 48, 48), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (0, 9)]
    model.train_step(dict(inputs=images, data_samples=samples), wrapper)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {'head.fc.weight', 'head.fc.bias'}


@pytest.mark.parametrize('name', KNN)
def test_knn(name):
    cfg = load(name)
    check_data(cfg.val_dataloader, cfg.test_dataloader, cfg.val_cfg.bank_dataloader)
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model).get_submodule(cfg.val_cfg.backbone)
    assert hasattr(backbone, 'blocks')
    assert {LOOPS.get(c.type).__name__ for c in (cfg.val_cfg, cfg.test_cfg)} == {
        'KNNValLoop',
        'KNNTestLoop',
    }
    assert METRICS.get(cfg.val_evaluator.type).__name__ == 'KNNAccuracy'


def test_dino_on_imagenet_is_validated_as_dino_does():
    cfg = load('dino/vit_small_dino.py')
    assert (tuple(cfg.val_cfg.k), cfg.val_cfg.temperature) == ((10, 20, 100, 200), 0.07)
    assert cfg.val_cfg.backbone == 'teacher.module.backbone'
    assert [cfg.val_cfg.bank_dataloader.dataset.split, cfg.val_dataloader.dataset.split] == [
        'train',
        'val',
    ]
