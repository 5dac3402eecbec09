"""Every shipped config is built: model, pipelines, optimizer, schedule; recipes hold."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from locat_mm.engine import build_runner, load_config
from locat_mm.registry import MODELS

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.relative_to(ROOT).parts
)


def short(path: Path) -> str:
    return str(path.relative_to(ROOT / 'configs'))


def load(name: str) -> Config:
    cfg = load_config(str(ROOT / 'configs' / name))
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize('path', CONFIGS, ids=short)
def test_builds(path):
    cfg = load(short(path))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for step in cfg[name].dataset.pipeline:
            TRANSFORMS.build(step)
        with DATASETS.switch_scope_and_registry(None) as registry:
            assert registry.get(cfg[name].dataset.type)
    for step in cfg.get('tta_pipeline', ()):
        TRANSFORMS.build(step)
    # AMP needs an accelerator.
    settings = Config(dict(wrapper={**cfg.optim_wrapper, 'type': 'OptimWrapper'}))
    optimizer = build_optim_wrapper(model, settings.wrapper).optimizer
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained <= {id(p) for group in optimizer.param_groups for p in group['params']}


def test_the_readme_names_shipped_configs():
    readme = (ROOT / 'README.md').read_text()
    named = set(re.findall(r'configs/([\w/]+\.py)', readme))
    assert {'locat/locatvit_tiny_imagenet.py', 'locat/locatvit_tiny_ade20k.py'} <= named
    assert named <= {short(p) for p in CONFIGS}


def steps(pipeline: list) -> dict:
    """Transforms by type; of a RandomChoice, the list of what may be chosen."""
    found = {}
    for step in pipeline:
        if step['type'] == 'RandomChoice':
            choices = [option[0] for option in step['transforms']]
            found[choices[0]['type']] = choices
        else:
            found[step['type']] = step
    return found


def test_imagenet_recipe():
    cfg = load('locat/locatvit_tiny_imagenet.py')
    train, test = steps(cfg.train_pipeline), steps(cfg.test_pipeline)
    for name in ('RandomResizedCrop', 'RandAugment'):
        found = {(c.get('hparams') or c)['interpolation'] for c in train[name]}
        assert found == {'bilinear', 'bicubic'}, name
    assert tuple(train['RandomResizedCrop'][0]['crop_ratio_range']) == (0.08, 1.0)
    policy = train['RandAugment'][0]
    assert policy['policies'] == 'timm_increasing'
    assert (policy['magnitude_level'], policy['magnitude_std']) == (9, 0.5)
    assert train['RandomFlip']['prob'] == 0.5
    assert (train['RandomErasing']['erase_prob'], train['RandomErasing']['mode']) == (0.25, 'rand')
    assert test['ResizeEdge']['interpolation'] == 'bicubic'
    assert round(224 / test['ResizeEdge']['scale'], 1) == 0.9
    augments = {a['type']: a['alpha'] for a in cfg.model.train_cfg.augments}
    assert augments == {'Mixup': 0.8, 'CutMix': 1.0}
    loss = cfg.model.head.loss
    assert (loss.label_smooth_val, loss.mode) == (0.1, 'original')
    assert cfg.model.data_preprocessor.mean == cfg.model.data_preprocessor.std == [127.5] * 3
    backbone = cfg.model.backbone
    assert (backbone.drop_path_rate, backbone.gaug, backbone.out_type) == (0.1, True, 'raw')
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024


def test_ade20k_recipe():
    cfg = load('locat/locatvit_tiny_ade20k.py')
    train, test = steps(cfg.train_pipeline), steps(cfg.test_pipeline)
    resize = train['RandomResize']
    assert (tuple(resize['scale']), tuple(resize['ratio_range'])) == ((2048, 512), (0.5, 2.0))
    crop = train['RandomCrop']
    assert (tuple(crop['crop_size']), crop['cat_max_ratio']) == ((512, 512), 0.75)
    assert train['RandomFlip']['prob'] == 0.5 and 'PhotoMetricDistortion' in train
    assert test['Resize']['keep_ratio'] and 'RandomFlip' not in test
    assert cfg.model.test_cfg.mode == 'whole'
    assert cfg.train_dataloader.batch_size * 8 == 32 and cfg.train_cfg.max_iters == 20000
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    assert backbone.frozen and not backbone.final_norm and backbone.out_type == 'featmap'
    assert (head.channels, head.num_classes) == (512, 150)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, tuple(optimizer.betas)) == (1e-3, (0.9, 0.999))
    assert optimizer.weight_decay == 0.01


@pytest.mark.parametrize('name', ['vit/vit_tiny_imagenet.py', 'locat/locatvit_tiny_imagenet.py'])
def test_imagenet_decays_what_the_authors_decay(name):
    cfg = load(name)
    model = MODELS.build({**cfg.model, 'backbone': {**cfg.model.backbone, 'num_registers': 2}})
    wrapper = build_optim_wrapper(
        model, Config(dict(w={**cfg.optim_wrapper, 'type': 'OptimWrapper'})).w
    )
    assert wrapper.clip_grad_kwargs['max_norm'] == 5.0
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    for key, parameter in model.named_parameters():
        free = parameter.ndim == 1 or key in ('backbone.pos_embed', 'backbone.cls_token')
        assert decay[id(parameter)] == (0.0 if free else 0.05), key


def write_imagenet(folder: Path) -> None:
    rng = np.random.default_rng(0)
    root = folder / 'data' / 'imagenet'
    for split in ('train', 'val'):
        lines = []
        for label, wnid in ((0, 'n01440764'), (999, 'n15075141')):
            (root / split / wnid).mkdir(parents=True)
            for i in range(4):
                image = rng.integers(0, 255, (300, 260, 3), np.uint8)
                cv2.imwrite(str(root / split / wnid / f'{i}.JPEG'), image)
                lines.append(f'{wnid}/{i}.JPEG {label}')
        # Without a list, mmpretrain wants all 1,000 class folders.
        (root / 'meta').mkdir(exist_ok=True)
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(lines))


def write_ade20k(folder: Path) -> None:
    rng = np.random.default_rng(0)
    root = folder / 'data' / 'ade' / 'ADEChallengeData2016'
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for i in range(2):
            image = rng.integers(0, 255, (150, 211, 3), np.uint8)
            mask = np.kron(rng.integers(0, 151, (15, 22)), np.ones((10, 10)))[:150, :211]
            cv2.imwrite(str(root / 'images' / split / f'{i}.jpg'), image)
            cv2.imwrite(str(root / 'annotations' / split / f'{i}.png'), mask.astype(np.uint8))


SMALL = {
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'model.backbone.arch': dict(_delete_=True, embed_dim=24, depth=2, num_heads=3),
    'model.backbone.drop_path_rate': 0.0,
}


@pytest.mark.parametrize('model', ['vit/vit', 'locat/locatvit'])
@pytest.mark.parametrize('task', ['imagenet', 'ade20k'])
def test_one_epoch_on_data_in_the_real_layout(model, task, tmp_path, monkeypatch):
    """The shipped recipe on a few images laid out as the real data set, then a test."""
    monkeypatch.chdir(tmp_path)
    overrides = dict(SMALL)
    if task == 'imagenet':
        write_imagenet(tmp_path)
        overrides |= {
            'model.head.in_channels': 24,
            'train_dataloader.batch_size': 4,
            'optim_wrapper.type': 'OptimWrapper',
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
            'param_scheduler': None,
            'val_evaluator.topk': (1, 5),
        }
    else:
        write_ade20k(tmp_path)
        overrides |= {
            'model.decode_head.in_channels': 24,
            'model.backbone.init_cfg': None,
            'train_dataloader.batch_size': 2,
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
        }
    cfg = load_config(str(ROOT / 'configs' / f'{model}_tiny_{task}.py'), overrides, 'out')
    runner = build_runner(cfg)
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    assert all(v.isfinite().all() for v in after.values())
    changed = {k for k in after if not torch.equal(before[k], after[k])}
    if task == 'ade20k':
        assert changed and all(k.startswith('decode_head.') for k in changed)
    else:
        assert {'backbone.pos_embed', 'head.fc.weight'} <= changed


def curve(cfg: Config, steps: list[int]) -> dict[int, float]:
    """The learning rate of each update, by stepping the schedule that mmengine builds."""
    runner = build_runner(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    schedulers = runner.build_param_scheduler(runner.param_schedulers)
    found = {}
    for step in range(max(steps) + 1):
        found[step] = wrapper.get_lr()['lr'][0]
        wrapper.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return {step: found[step] for step in steps}


def test_imagenet_learning_rate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_imagenet(tmp_path)
    # 8 images in batches of 2, 300 epochs: linear up for 80 updates, linear down for 1120.
    overrides = {'train_dataloader.batch_size': 2, 'optim_wrapper.type': 'OptimWrapper'}
    path = str(ROOT / 'configs' / 'locat' / 'locatvit_tiny_imagenet.py')
    cfg = load_config(path, {**SMALL, 'model.head.in_channels': 24, **overrides}, 'out')
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.auto_scale_lr.base_batch_size == 1024
    found = curve(cfg, [0, 40, 80, 640, 1199])
    assert found[0] == pytest.approx(1e-7)
    assert found[40] == pytest.approx(5e-4, rel=0.02)
    assert found[80] == pytest.approx(1e-3, rel=0.02)
    assert found[640] == pytest.approx(5e-4, rel=0.02)
    assert found[1199] == pytest.approx(1e-7, rel=1e-2)


def test_ade20k_learning_rate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ade20k(tmp_path)
    path = str(ROOT / 'configs' / 'locat' / 'locatvit_tiny_ade20k.py')
    found = curve(load_config(path, work_dir='out'), [0, 2500, 4999, 12500, 19999])
    assert found[0] == pytest.approx(1e-7, rel=1e-3)
    assert found[2500] == pytest.approx(5e-4, rel=0.01)
    assert found[4999] == pytest.approx(1e-3, rel=1e-3)
    assert found[12500] == pytest.approx(5e-4, rel=0.01)
    assert found[19999] == pytest.approx(1e-11, rel=1e-2)


def test_layer_wise_decay_through_mmpretrains_constructor():
    cfg = load('locat/locatvit_tiny_imagenet.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    settings = Config(
        dict(
            wrapper=dict(
                optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
                constructor='LearningRateDecayOptimWrapperConstructor',
                paramwise_cfg=dict(layer_decay_rate=0.5),
            )
        )
    )
    groups = build_optim_wrapper(model, settings.wrapper).optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in groups}
    # 12 blocks between the embeddings and what comes after: 14 depths.
    assert rates['backbone.patch_embed.proj.weight'] == 0.5**13
    assert rates['backbone.blocks.0.attn.gaug.log_var.weight'] == 0.5**12
    assert rates['backbone.blocks.11.mlp.fc1.weight'] == 0.5
    assert rates['backbone.norm.weight'] == rates['head.fc.weight'] == 1.0
