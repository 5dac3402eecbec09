"""The demo with patches of half the side: the same recipe but for what the patch determines."""

import pytest
import torch

from locat_mm.layers import FixedGaussian
from tests.support.shipped import build_on_meta, load

#: stem in configs/demo/grid -> stem of the same model with patches of 8, folder first
MODELS = {
    'vit_patch4': ('', 'vit'),
    'locatvit_patch4': ('', 'locatvit'),
    'vit_patch4_fixed': ('ablation/', 'vit_fixed'),
}


def leaves(cfg) -> dict:
    """Path in a config -> value, of all that is no dict."""
    found = {}
    for key, value in cfg.items():
        if isinstance(value, dict):
            found |= {f'{key}.{inner}': v for inner, v in leaves(value).items()}
        else:
            found[key] = value
    return found


def changed(stem: str, kind: str) -> dict:
    """What a config of the fine grid has in place of the demo's values."""
    folder, coarse = MODELS[stem]
    before = leaves(load(f'demo/{folder}{kind.format(coarse)}.py').to_dict())
    after = leaves(load(f'demo/grid/{kind.format(stem)}.py').to_dict())
    assert before.keys() <= after.keys()
    differing = {key: value for key, value in after.items() if value != before.get(key)}
    assert differing.pop('work_dir') == f'work_dirs/{kind.format(stem)}'
    return differing


@pytest.mark.parametrize('stem', MODELS)
def test_only_what_the_patch_determines_differs(stem):
    is_fixed = stem.endswith('fixed')
    host = 'model.backbone.backbone' if is_fixed else 'model.backbone'
    patch = {f'{host}.patch_size': 4}
    if is_fixed:
        patch['model.backbone.variance'] = 4.0 * (8 / 4) ** 2  # in squared patches
    start = f'work_dirs/{"vit_patch4" if is_fixed else stem}_classify/epoch_8.pth'
    weights = {'model.backbone.init_cfg.checkpoint': start}
    assert changed(stem, '{}_classify') == patch
    divisor = {'model.data_preprocessor.test_cfg.size_divisor': 4}
    assert changed(stem, '{}_segment') == patch | weights | divisor
    bank = {'model.max_patches': 2000 * (72 // 8) ** 2}
    assert changed(stem, 'in_context_{}') == patch | weights | bank


@pytest.mark.parametrize('stem', MODELS)
def test_a_scene_has_18_by_18_patches(stem):
    cfg = load(f'demo/grid/in_context_{stem}.py')
    model = build_on_meta(cfg).to('meta')
    assert model._features(torch.empty(1, 3, 72, 72, device='meta')).shape[2:] == (18, 18)
    gaussians = [module for module in model.modules() if isinstance(module, FixedGaussian)]
    assert len(gaussians) == (4 if stem.endswith('fixed') else 0)
