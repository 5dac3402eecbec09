"""Numbers from the authors' code, and our models built to match them."""

import json

import numpy as np
import torch
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier

from locat_mm.registry import MODELS

from . import ROOT

GOLDEN = ROOT / 'tests' / 'data' / 'golden'
VIT_VARIANTS = (
    *('vit', 'vit_gap', 'regvit', 'nopos_vit', 'locatvit', 'locatvit_gaug_only'),
    *('locatvit_prr_only', 'locatvit_nopos', 'locatvit_gap', 'locatvit_reg4'),
)
VARIANTS = (
    *VIT_VARIANTS,
    *('swin', 'swin_shrunk', 'locatswin', 'locatswin_shrunk'),
    *('rope_mixed_vit', 'locatvit_rope_mixed', 'jumbo', 'locatjumbo'),
)


class Golden:
    """One file: ``meta``, ``state_dict`` and arrays by name."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f'{name}.npz') as file:
            self.arrays = {key: torch.from_numpy(file[key]) for key in file if key != 'meta'}
            self.meta = json.loads(bytes(file['meta'])) if 'meta' in file else {}
        self.name = name
        self.state_dict = {k[3:]: v for k, v in self.arrays.items() if k.startswith('sd/')}

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    @property
    def sizes(self) -> list[str]:
        return [f'{height}x{width}' for height, width in self.meta['sizes']]

    @property
    def family(self) -> str:
        return next((f for f in ('swin', 'rope', 'jumbo') if f in self.name), 'vit')

    @property
    def gap(self) -> bool:
        return self.meta['kwargs'].get('global_pool') == 'avg'

    @property
    def gaug(self) -> bool:
        return self.name.startswith('locat') and self.meta['kwargs'].get('gaug', True)

    @property
    def prr(self) -> bool:
        return self.name.startswith('locat') and self.meta['kwargs'].get('prr', True)

    def backbone_cfg(self, **kwargs) -> dict:
        """Our backbone for the authors' arguments."""
        theirs = self.meta['kwargs']
        cfg = dict(gaug=self.gaug, img_size=theirs['img_size'], patch_size=theirs['patch_size'])
        if self.family == 'swin':
            arch = {key: theirs[key] for key in ('embed_dim', 'depths', 'num_heads')}
            cfg.update(type='locat_mm.LocAtSwin', window_size=theirs['window_size'])
        else:
            arch = {key: theirs[key] for key in ('embed_dim', 'depth', 'num_heads')}
        if self.family == 'rope':
            cfg.update(type='locat_mm.LocAtRoPEViT')
        if self.family == 'jumbo':
            cfg.update(type='locat_mm.LocAtJumbo', num_jumbo_tokens=theirs['J'])
        if self.family == 'vit':
            cfg.update(
                type='locat_mm.LocAtViT',
                class_token=theirs.get('class_token', True),
                num_registers=theirs.get('reg_tokens', 0),
                pos_embed='none' if 'nopos' in self.name else 'learned',
            )
        return {**cfg, 'arch': arch, **kwargs}

    def backbone(self, **kwargs) -> BaseModule:
        return MODELS.build(self.backbone_cfg(**kwargs)).eval()

    @property
    def head_channels(self) -> int:
        key = 'head.fc.weight' if self.family == 'swin' else 'head.weight'
        return self.state_dict[key].shape[1]

    def classifier(self, **backbone) -> ImageClassifier:
        """The whole classifier: what follows the backbone differs per variant."""
        theirs = self.meta['kwargs']
        neck, pooled = None, self.gap or self.family == 'swin'
        out = dict(out_type='avg_featmap' if pooled else 'cls_token')
        if self.prr:
            out = dict(
                out_type='featmap' if self.family == 'swin' else 'raw', final_norm=not self.gap
            )
            heads = theirs['num_heads']
            neck = dict(
                type='locat_mm.PatchRepresentationRefinement',
                num_heads=heads[-1] if self.family == 'swin' else heads,
                pool='avg' if pooled else 'cls_token',
            )
            if self.family == 'jumbo':
                neck.update(pool='prefix', num_prefix_tokens=theirs['J'])
            if self.gap:
                norm = dict(type='LN', eps=1e-6)
                neck.update(norm_cfg=norm, norm_channels=theirs['embed_dim'])
        return ImageClassifier(
            backbone=self.backbone_cfg(**out, **backbone),
            neck=neck,
            head=dict(
                type='LinearClsHead',
                num_classes=theirs['num_classes'],
                in_channels=self.head_channels,
            ),
        ).eval()
