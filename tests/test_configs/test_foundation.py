"""configs/foundation: complete, built on meta, and run once on weights of a laid-out hub cache."""

import re

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, TRANSFORMS

from locat_mm.layers import FixedGaussian, GaussianAugment
from tests.support.evaluation import in_context_config, quick_runner, write_scenes
from tests.support.shipped import CONFIGS, build_on_meta, load

MODELS = (
    *(f'{name}_{size}' for name in ('dinov2', 'dinov3', 'pe') for size in ('small', 'base')),
    *('clip_base', 'siglip2_base'),
)
TASKS = ('ade20k', 'voc', 'in_context_ade20k', 'in_context_voc')
NAMES = [name for name in CONFIGS if name.startswith('foundation/')]


def test_the_grid_is_complete():
    kinds = ('', '_fixed', '_identity')
    assert set(NAMES) == {f'foundation/{m}{k}_{t}.py' for m in MODELS for k in kinds for t in TASKS}


def host_of(cfg: Config) -> dict:
    backbone = cfg.model.backbone
    return backbone.get('backbone', backbone)


@pytest.mark.parametrize('name', NAMES)
def test_is_what_its_name_says(name):
    model, kind, task = re.fullmatch(
        r'foundation/(\w+?_(?:small|base))(_fixed|_identity)?_(\w+)\.py', name
    ).groups()
    cfg = load(name)
    host = host_of(cfg)
    assert host.type == 'locat_mm.TIMMBackbone' and host.out_type == 'featmap'
    trains = kind == '_identity' and not task.startswith('in_context')
    assert host.frozen == (not trains)
    assert ('small' in host.model_name) == model.endswith('small')
    pretrained = timm.get_pretrained_cfg(host.model_name)
    stats = cfg.model.data_preprocessor
    assert stats.mean == pytest.approx([255 * x for x in pretrained.mean], abs=0.01)
    assert stats.std == pytest.approx([255 * x for x in pretrained.std], abs=0.01)
    classes, data = (150, 'ADE20KDataset') if 'ade20k' in task else (21, 'PascalVOCDataset')
    loader = cfg.test_dataloader
    with DATASETS.switch_scope_and_registry(None) as registry:
        assert registry.get(loader.dataset.type).__name__ == data
    assert bool(loader.dataset.pipeline[2].get('reduce_zero_label')) == ('ade20k' in task)
    if kind == '_identity' and 'in_context' in task:
        checkpoint = f'work_dirs/{model}_identity_{task.split("_")[-1]}/iter_20000.pth'
        assert (host.init_cfg.checkpoint, host.init_cfg.prefix) == (checkpoint, 'backbone.')
    else:
        assert host.init_cfg.checkpoint == f'timm:{host.model_name}'
    if 'in_context' in task:
        assert cfg.model.num_classes == classes
    else:
        assert cfg.model.decode_head.num_classes == classes
        for step in cfg.train_dataloader.dataset.pipeline:
            TRANSFORMS.build(step)
    if 'ade20k' not in task or (model != 'dinov2_small' and (kind or task != 'ade20k')):
        return  # built of the same parts as others
    built = build_on_meta(cfg)
    wanted = {'_fixed': FixedGaussian, '_identity': GaussianAugment}.get(kind)
    found = [m for m in built.modules() if isinstance(m, (FixedGaussian, GaussianAugment))]
    assert {type(m) for m in found} == ({wanted} if wanted else set())
    assert len(found) == {None: 0, '_fixed': 1, '_identity': 12}[kind]
    patch = built.backbone.model.patch_embed.patch_size[0]
    if 'in_context' not in task:
        assert built.decode_head.in_channels == built.backbone.embed_dims
        assert stats.size[0] % patch == 0 and stats.test_cfg.size_divisor == patch
    if trains:
        wrapper = build_optim_wrapper(built, cfg.optim_wrapper)
        optimized = {id(p) for g in wrapper.optimizer.param_groups for p in g['params']}
        assert optimized == {
            id(p) for n, p in built.named_parameters() if '.gaug.' in n or n.startswith('decode')
        }
        assert not built.train().backbone.training


def test_runs_on_the_hubs_weights(hub, tmp_path):
    """The weights come from the cache; a file that the cache lacks is named."""
    write_scenes(tmp_path / 'scenes')
    cfg = in_context_config(tmp_path / 'scenes', tmp_path / 'run')
    cfg.model.backbone = load('foundation/dinov3_small_fixed_in_context_voc.py').model.backbone
    for loader, place in ((cfg.test_dataloader, 1), (cfg.test_cfg.bank_dataloader, 3)):
        loader.dataset.pipeline.insert(place, dict(type='Resize', scale=(48, 32)))
    name = host_of(cfg).model_name
    runner = quick_runner(cfg)
    with pytest.raises(FileNotFoundError, match=f'timm/{name}'):
        runner.model.init_weights()
    weights = timm.create_model(name).state_dict()
    hub.add(f'timm/{name}', weights)
    runner.model.init_weights()
    loaded = runner.model.backbone.model.state_dict()
    key = 'blocks.1.attn.qkv.weight'
    torch.testing.assert_close(loaded[key], weights[key], rtol=0, atol=0)
    assert 0 <= runner.test()['mIoU'] <= 100
