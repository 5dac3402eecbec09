"""The shipped configs: none is missing, each is what its name says, and each model is built."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.runner import Runner

from locat_mm.config import walk
from locat_mm.registry import MODELS as REGISTRY
from tests.support.shipped import (
    ABLATION,
    CONFIGS,
    FAMILIES,
    GRID,
    MODELS,
    ROOT,
    SIZES,
    TASKS,
    build_on_meta,
    leaf,
    load,
)

KINDS = dict(vit='ViT', regvit='ViT', ropevit='RoPEViT', jumbo='Jumbo', swin='Swin')
DROP_PATH = dict(tiny=0.1, small=0.2, base=0.4)
DATA = dict(
    imagenet=('ImageNet', 1000),
    ade20k=('ADE20KDataset', 150),
    pcontext=('PascalContextDataset59', 59),
    cocostuff=('COCOStuffDataset', 171),
)
HALF = [127.5] * 3
IMAGENET_MEAN, IMAGENET_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

#: Built by tests/test_configs/test_foundation.py.
FOUNDATION = [name for name in CONFIGS if name.startswith('foundation/')]
#: Built by tests/test_configs/test_fields.py.
FIELDS = [name for name in CONFIGS if name.startswith(('satellite/', 'medical/'))]
#: Built by tests/test_evaluation and tests/test_dino.
EVALUATED = [name for name in CONFIGS if re.search(r'(^|/)(dino/|in_context|linear_eval)', name)]

#: A few numbers of a trained classifier train: test_a_tuning_trains_a_few_numbers.
TUNED = [name for name in CONFIGS if name.endswith('_tune.py')]

#: Top-level keys beside the Runner's arguments. A base exports nothing else.
KEYS = {'dataset_source', 'dataset_type', 'data_root', 'num_classes', 'crop_size', 'metainfo'}
KEYS |= {'train_pipeline', 'test_pipeline', 'tta_pipeline', 'tta_model'}
#: Variables of mmseg's data sets.
KEYS |= {'img_ratios', 'img_scale', 'val_pipeline'}
KEYS |= {'train_img_scale', 'val_img_scale', 'test_img_scale'}
KEYS |= {'log_level', 'log_processor', 'auto_scale_lr', 'runner_type', 'strategy'}

#: Values that change neither a module nor a width, except the width of the last layer.
NO_MODULE = {'data_preprocessor', 'init_cfg', 'drop_path_rate', 'frozen', 'num_classes'}
#: Values that make a size.
SIZE = {'arch', 'drop_path_rate', 'in_channels', 'num_heads', 'embed_dim', 'checkpoint'}


def without(settings, keys: set[str]):
    """A part of a config without these keys, at any depth."""
    if isinstance(settings, dict):
        return {k: without(v, keys) for k, v in settings.items() if k not in keys}
    if isinstance(settings, (list, tuple)):
        return [without(v, keys) for v in settings]
    return settings


def test_the_grid_is_complete():
    others = {name for name in CONFIGS if re.search('^(demo|land_cover)/|_fsdp.py$', name)}
    others |= set(EVALUATED) | set(FOUNDATION) | set(FIELDS)
    assert GRID == set(CONFIGS) - others
    assert len(GRID) == 5 * 2 * 3 * 6 + len(ABLATION) * 2 * 2


#: What has been checked: leaves share most of their pipelines and models.
CHECKED = set()


def is_new(part: object) -> bool:
    return json.dumps(part, sort_keys=True) not in CHECKED


def done(part: object) -> None:
    CHECKED.add(json.dumps(part, sort_keys=True))


def check_pipeline(steps: list) -> None:
    if is_new(steps):
        for step in steps:
            TRANSFORMS.build(step)
        done(steps)


@pytest.mark.parametrize(
    'name',
    sorted(
        set(CONFIGS) - set(EVALUATED) - set(FOUNDATION) - set(FIELDS) - set(TUNED),
        key=lambda name: ('_tiny_' not in name, name),
    ),
)
def test_builds(name):
    """Models of the same modules are built once: of the three sizes, Tiny.

    test_is_what_its_name_says holds the widths of all sizes to the backbone's.
    """
    cfg = load(name)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        check_pipeline(cfg[loader].dataset.pipeline)
        with DATASETS.switch_scope_and_registry(None) as registry:
            assert registry.get(cfg[loader].dataset.type)
    check_pipeline(cfg.get('tta_pipeline', []))
    parts = [part for _, part in walk(cfg.model)]
    assert {part.num_classes for part in parts if 'num_classes' in part} == {cfg.num_classes}
    assert all('checkpoint' in part for part in parts if part.get('type') == 'Pretrained')
    structure = without(cfg.model.to_dict(), NO_MODULE | (SIZE if name in GRID else set()))
    if is_new(structure):
        check_model(name, cfg)
        done(structure)


def test_a_tuning_trains_a_few_numbers():
    trained = {}
    for name in TUNED:
        cfg = load(name)
        check_pipeline(cfg.train_dataloader.dataset.pipeline)
        parts = (cfg.model, cfg.model.get('module') or cfg.model.backbone)
        for part in parts:
            part.pop('init_cfg', None)
        model = REGISTRY.build(cfg.model)
        build_optim_wrapper(model, Config(dict(wrapper=cfg.optim_wrapper)).wrapper)
        trained[name] = {
            name: p.numel()
            for name, p in model.named_parameters()
            if p.requires_grad and not name.startswith(('head.', 'teacher.'))
        }
    dense, lora = (trained[f'demo/ablation/vit_{kind}_tune.py'] for kind in ('gaug_dense', 'lora'))
    assert len(trained) == 2
    # GAug: 2 × 32 + 2, 32 + 1 and 1 in each of 4 blocks; LoRA of rank 4: 4 × (64 + 192)
    assert all('.gaug.' in key for key in dense) and sum(dense.values()) == 4 * 100 == 400
    assert all('.qkv.lora_' in key for key in lora) and sum(lora.values()) == 4 * 1024


@pytest.mark.parametrize('size', ['small', 'base'])
@pytest.mark.parametrize('family', FAMILIES)
def test_other_sizes_build(family, size):
    name = leaf(f'locat{family}', size, 'imagenet')
    check_model(name, load(name))


def check_model(name: str, cfg: Config) -> None:
    model = build_on_meta(cfg)
    # AMP needs an accelerator.
    settings = Config(dict(wrapper={**cfg.optim_wrapper, 'type': 'OptimWrapper'}))
    optimizer = build_optim_wrapper(model, settings.wrapper).optimizer
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    handed = [id(p) for group in optimizer.param_groups for p in group['params']]
    assert sorted(handed) == sorted(trained)
    # One image through the test path: the widths of backbone, neck and head fit. A block returns
    # the shape that it gets, so the deep models pass it by; test_training_step.py runs blocks.
    if name in GRID:
        for module in model.backbone.modules():
            if hasattr(module, 'attn') and hasattr(module, 'mlp'):
                module.forward = lambda x, *args, **kwargs: x
    backbone = cfg.model.backbone
    side = backbone.get('backbone', backbone).img_size  # of the model that LocAt is attached to
    with torch.no_grad():
        out = model.to('meta').eval()(torch.empty(1, 3, side, side, device='meta'))
    assert out.shape[:2] == (1, cfg.num_classes)


@pytest.mark.parametrize('model', [*MODELS, *ABLATION])
def test_a_model_is_one_template(model):
    """Small and Base are Tiny in another size; data sets change classes and crop size alone."""
    is_row = model in ABLATION
    for task in ('imagenet', 'ade20k') if is_row else TASKS:
        tiny = load(leaf(model, 'tiny', task)).model.to_dict()
        for size in ('base',) if is_row else ('small', 'base'):
            other = load(leaf(model, size, task)).model.to_dict()
            assert without(other, SIZE) == without(tiny, SIZE), (task, size)
    if not is_row:
        ade20k = load(leaf(model, 'tiny', 'ade20k')).model.to_dict()
        for task in ('pcontext', 'cocostuff'):
            other = load(leaf(model, 'tiny', task)).model.to_dict()
            keys = {'num_classes', 'size'}
            assert without(other, keys) == without(ade20k, keys), task


@pytest.mark.parametrize('name', sorted(GRID))
def test_is_what_its_name_says(name):
    model, size, task = re.fullmatch(
        r'\w+/([a-z]+(?:_[a-z]+)?)_(tiny|small|base)_(\w+)\.py', name
    ).groups()
    if task.startswith('rotated_'):
        model, task = f'{model}_rotated', task.removeprefix('rotated_')
    cfg = load(name)
    backbone = cfg.model.backbone
    row = model.partition('_')[2]
    family = model.partition('_')[0].removeprefix('locat')
    assert backbone.type == f'locat_mm.LocAt{KINDS[family]}'
    assert (backbone.arch, backbone.img_size) == (size, 224)
    assert backbone.patch_size == (4 if family == 'swin' else 16)
    assert backbone.get('num_registers', 0) == (4 if family == 'regvit' else 0)
    assert backbone.get('class_token', True) == (row != 'gap')
    assert backbone.get('pos_embed', 'learned') == ('none' if row == 'nopos' else 'learned')
    assert backbone.get('kernel', 'axis') == ('rotated' if row == 'rotated' else 'axis')
    has_locat = model.startswith('locat')
    assert backbone.gaug == (has_locat or row == 'gaug')
    data = task.rpartition('_')[2]
    assert (cfg.train_dataloader.dataset.type, cfg.num_classes) == DATA[data]
    stats = cfg.model.data_preprocessor
    arch = REGISTRY.get(backbone.type).ARCHS[size]
    widths = [arch['embed_dim'] * (2**i if family == 'swin' else 1) for i in range(4)]
    if task == 'imagenet':
        assert backbone.drop_path_rate == DROP_PATH[size]
        has_prr = 'neck' in cfg.model and cfg.model.neck is not None
        assert has_prr == (has_locat or row == 'prr')
        if has_prr:
            heads = arch['num_heads']
            assert cfg.model.neck.num_heads == (heads[-1] if family == 'swin' else heads)
        assert cfg.model.head.in_channels == widths[-1] * (6 if family == 'jumbo' else 1)
        if family in ('swin', 'ropevit'):
            assert (stats.mean, stats.std) == (IMAGENET_MEAN, IMAGENET_STD)
        else:
            assert (stats.mean, stats.std) == (HALF, HALF)
        return
    assert (stats.mean, stats.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert stats.test_cfg.size_divisor == backbone.patch_size
    assert stats.size == cfg.crop_size
    assert (backbone.out_type, backbone.final_norm) == ('featmap', False)
    assert backbone.get('frozen', False) == (task != 'upernet_ade20k')
    head = cfg.model.decode_head
    if 'upernet' in task:
        assert (head.type, head.in_channels) == ('UPerHead', widths)
        assert cfg.model.auxiliary_head.in_channels == widths[cfg.model.auxiliary_head.in_index]
        neck = cfg.model.neck
        assert neck is None if family == 'swin' else neck.embed_dim == widths[-1]
    else:
        assert (head.type, head.in_channels) == ('locat_mm.LinearSegHead', widths[-1])
    released = model == 'locatvit' and size in ('tiny', 'base')
    assert backbone.init_cfg == dict(
        type='Pretrained',
        checkpoint=f'hf-hub:sinahmr/locatvit_{size}'
        if released
        else f'work_dirs/{Path(leaf(model, size, "imagenet")).stem}/epoch_300.pth',
    )


def recipe(cfg: Config) -> dict:
    """All of a config but its model."""
    return {key: value for key, value in cfg.items() if key not in ('model', 'work_dir')}


@pytest.mark.parametrize('task', TASKS)
def test_one_recipe_per_task(task):
    """test_recipes.py looks closely at one leaf; the others have the same recipe."""
    reference = recipe(load(leaf('vit', 'tiny', task)))
    head = load(leaf('vit', 'tiny', task)).model.get('decode_head')
    for name in sorted(GRID):
        if not name.endswith(f'_{task}.py') or ('upernet' in name) != ('upernet' in task):
            continue
        cfg = load(name)
        found = recipe(cfg)
        if task == 'imagenet' and ('swin' in name or 'ropevit' in name):
            reference_here = recipe(load(leaf('swin', 'tiny', task)))
        else:
            reference_here = dict(reference)
        if task == 'upernet_ade20k':
            rate = found['optim_wrapper'].paramwise_cfg.pop('layer_decay_rate')
            assert rate == (0.9 if 'swin' in name else 0.65)
            reference_here['optim_wrapper'].paramwise_cfg.pop('layer_decay_rate', None)
        assert found == reference_here, name
        if head is not None:
            ours = {**cfg.model.decode_head, 'in_channels': head.in_channels}
            assert ours == head, name


def test_bases_export_no_variables_of_their_own():
    known = KEYS | set(inspect.signature(Runner.__init__).parameters)
    unknown = {name: set(load(name).keys()) - known for name in CONFIGS}
    assert not {name: keys for name, keys in unknown.items() if keys}
    # 43, two of land_cover's data (tiles and scenes), two of folders of GeoTIFF and NIfTI
    assert len([*ROOT.glob('configs/_base_/**/*.py')]) <= 47


def test_every_row_of_the_ablation_has_a_plain_and_a_locat_neighbour():
    for size in ('tiny', 'base'):
        for task in ('imagenet', 'ade20k'):
            for row in (*ABLATION, 'vit', 'locatvit'):
                assert leaf(row, size, task) in CONFIGS
    assert set(SIZES) == set(DROP_PATH)
