"""The grid of shipped configs: complete, each leaf what its name says, all of them built."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, TRANSFORMS
from shipped import ABLATION, CONFIGS, GRID, ROOT, SIZES, TASKS, leaf, load

from locat_mm.registry import MODELS

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

#: Built by tests/test_evaluation and tests/test_dino.
EVALUATED = [name for name in CONFIGS if re.search(r'(^|/)(dino|in_context|linear_eval)', name)]


def test_the_grid_is_complete():
    others = {name for name in CONFIGS if name.startswith('demo/') or name.endswith('_fsdp.py')}
    others |= set(EVALUATED)
    assert GRID == set(CONFIGS) - others
    assert len(GRID) == 5 * 2 * 3 * 6 + 5 * 2 * 2


@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in EVALUATED])
def test_builds(name):
    cfg = load(name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for step in cfg[loader].dataset.pipeline:
            TRANSFORMS.build(step)
        with DATASETS.switch_scope_and_registry(None) as registry:
            assert registry.get(cfg[loader].dataset.type)
    for step in cfg.get('tta_pipeline', ()):
        TRANSFORMS.build(step)
    # AMP needs an accelerator.
    settings = Config(dict(wrapper={**cfg.optim_wrapper, 'type': 'OptimWrapper'}))
    optimizer = build_optim_wrapper(model, settings.wrapper).optimizer
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    handed = [id(p) for group in optimizer.param_groups for p in group['params']]
    assert sorted(handed) == sorted(trained)
    # One image through the test path: the widths of backbone, neck and head fit.
    backbone = cfg.model.backbone
    side = backbone.get('backbone', backbone).img_size  # of what LocAt is attached to
    with torch.no_grad():
        out = model.to('meta').eval()(torch.empty(1, 3, side, side, device='meta'))
    assert out.shape[:2] == (1, cfg.num_classes)


@pytest.mark.parametrize('name', sorted(GRID))
def test_is_what_its_name_says(name):
    model, size, task = re.fullmatch(
        r'\w+/([a-z]+(?:_[a-z]+)?)_(tiny|small|base)_(\w+)\.py', name
    ).groups()
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
    has_locat = model.startswith('locat')
    assert backbone.gaug == (has_locat or row == 'gaug')
    data = task.rpartition('_')[2]
    assert (cfg.train_dataloader.dataset.type, cfg.num_classes) == DATA[data]
    if task == 'imagenet':
        assert backbone.drop_path_rate == DROP_PATH[size]
        has_prr = 'neck' in cfg.model and cfg.model.neck is not None
        assert has_prr == (has_locat or row == 'prr')
        if has_prr:
            with torch.device('meta'):
                host = MODELS.build({**backbone, 'out_indices': -1})
            *_, attn = (m for m in host.modules() if hasattr(m, 'qkv'))
            assert cfg.model.neck.num_heads == attn.num_heads
        stats = cfg.model.data_preprocessor
        if family in ('swin', 'ropevit'):
            assert (stats.mean, stats.std) == (IMAGENET_MEAN, IMAGENET_STD)
        else:
            assert (stats.mean, stats.std) == (HALF, HALF)
        return
    stats = cfg.model.data_preprocessor
    assert (stats.mean, stats.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert stats.test_cfg.size_divisor == backbone.patch_size
    assert (backbone.out_type, backbone.final_norm) == ('featmap', False)
    assert backbone.get('frozen', False) == (task != 'upernet_ade20k')
    assert cfg.model.decode_head.type == (
        'UPerHead' if 'upernet' in task else 'locat_mm.LinearSegHead'
    )
    released = model == 'locatvit' and size in ('tiny', 'base')
    assert backbone.init_cfg == dict(
        type='Pretrained',
        checkpoint=f'hf-hub:sinahmr/locatvit_{size}'
        if released
        else f'work_dirs/{model}_{size}_imagenet/epoch_300.pth',
    )


def recipe(cfg: Config) -> dict:
    """All of a config but its model."""
    keep = set(cfg.keys()) - {'model', 'backbone', 'neck', 'head', 'pretrained', 'pretraining'}
    keep -= {'patch_size', 'out_channels', 'pyramid', 'layer_decay_rate', 'work_dir'}
    return {key: cfg[key] for key in keep}


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


def test_every_row_of_the_ablation_has_a_plain_and_a_locat_neighbour():
    for size in ('tiny', 'base'):
        for task in ('imagenet', 'ade20k'):
            for row in (*ABLATION, 'vit', 'locatvit'):
                assert leaf(row, size, task) in CONFIGS
    assert set(SIZES) == set(DROP_PATH)


def test_the_docs_name_shipped_configs():
    pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
    named = {n for page in pages for n in re.findall(r'configs/([\w/]+\.py)', page.read_text())}
    named = {name for name in named if not re.search('[A-Z]{3}', name)}  # FAMILY_SIZE_TASK
    assert {'locat/locatvit_tiny_imagenet.py', 'locat/locatvit_tiny_ade20k.py'} <= named
    shipped = {*CONFIGS, *(f'_base_/{p.name}' for p in (ROOT / 'configs' / '_base_').glob('*.py'))}
    assert named <= shipped
