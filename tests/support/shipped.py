"""The shipped configs: their names, and how a test loads, shrinks and builds them."""

import copy
import functools

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils._python_dispatch import TorchDispatchMode

from locat_mm.config import load_config
from locat_mm.registry import MODELS as REGISTRY

from . import ROOT

FAMILIES = ('vit', 'regvit', 'ropevit', 'jumbo', 'swin')
SIZES = ('tiny', 'small', 'base')
TASKS = (
    *('imagenet', 'ade20k', 'pcontext', 'cocostuff'),
    *('upernet_ade20k', 'upernet_frozen_ade20k'),
)
ABLATION = ('vit_gaug', 'vit_prr', 'vit_gap', 'vit_nopos', 'locatvit_nopos', 'locatvit_rotated')
CONFIGS = sorted(
    str(path.relative_to(ROOT / 'configs'))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.relative_to(ROOT).parts
)


def leaf(model: str, size: str, task: str) -> str:
    """The name of the config of a model (``locatswin``, ``vit_gaug``), a size and a task."""
    if model == 'locatvit_rotated':
        return f'ablation/locatvit_{size}_rotated_{task}.py'
    if model in ABLATION:
        folder = 'ablation'
    else:
        folder = 'locat' if model.startswith('locat') else model
    return f'{folder}/{model}_{size}_{task}.py'


MODELS = (*FAMILIES, *(f'locat{family}' for family in FAMILIES))
GRID = {leaf(m, s, t) for m in MODELS for s in SIZES for t in TASKS}
GRID |= {leaf(m, s, t) for m in ABLATION for s in ('tiny', 'base') for t in ('imagenet', 'ade20k')}


_read = functools.cache(lambda name: load_config(str(ROOT / 'configs' / name)))


def load(name: str, overrides: dict | None = None, work_dir: str | None = None) -> Config:
    """A shipped config by its name, with its scope set. Each file is read once."""
    cfg = copy.deepcopy(_read(name))
    cfg.merge_from_dict(overrides or {})
    if work_dir is not None:
        cfg.work_dir = work_dir
    init_default_scope(cfg.default_scope)
    return cfg


class _SkipInit(TorchDispatchMode):
    """Skips in-place operations. Tensors on ``meta`` have no values, but the calls take time."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.endswith('_'):
            return args[0]
        return func(*args, **(kwargs or {}))


def build_on_meta(cfg: Config) -> torch.nn.Module:
    """The model of a config, without memory for its weights."""
    with torch.device('meta'), _SkipInit():
        return REGISTRY.build(cfg.model)


def shrink(name: str) -> dict:
    """Overrides that keep a model's structure at a width of a few channels."""
    task = next(t for t in sorted(TASKS, key=len, reverse=True) if name.endswith(f'_{t}.py'))
    is_swin, is_jumbo = 'swin' in name, 'jumbo' in name
    if is_swin:
        arch = dict(_delete_=True, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
        channels = [8, 16, 32, 64]
    else:
        arch = dict(_delete_=True, embed_dim=24, depth=4, num_heads=3)
        channels = [24] * 4
    small = {'model.backbone.arch': arch}
    if task == 'imagenet':
        width = 6 * channels[-1] if is_jumbo else channels[-1]
        small['model.head.in_channels'] = width
        if 'locat' in name or 'prr' in name:
            small['model.neck.num_heads'] = 2 if is_swin else 3
        return small
    small['model.backbone.init_cfg'] = None
    small['model.decode_head.channels'] = 8
    if 'upernet' not in task:
        return {**small, 'model.decode_head.in_channels': channels[-1]}
    small['model.decode_head.in_channels'] = channels
    small['model.auxiliary_head.in_channels'] = channels[2]
    small['model.auxiliary_head.channels'] = 8
    if not is_swin:
        small['model.neck.embed_dim'] = 24
        small['model.backbone.out_indices'] = (0, 1, 2, 3)
    return small
