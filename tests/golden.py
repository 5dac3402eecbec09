"""Numbers from the authors' code, and our models built to match them."""

import json
from pathlib import Path

import numpy as np
import torch
from mmpretrain.models import ImageClassifier

from locat_mm.models import LocAtViT

GOLDEN = Path(__file__).parent / 'data' / 'golden'
VIT_VARIANTS = (
    *('vit', 'vit_gap', 'regvit', 'nopos_vit', 'locatvit', 'locatvit_gaug_only'),
    *('locatvit_prr_only', 'locatvit_nopos', 'locatvit_gap', 'locatvit_reg4'),
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
    def gap(self) -> bool:
        return self.meta['kwargs'].get('global_pool') == 'avg'

    @property
    def prr(self) -> bool:
        return self.name.startswith('locat') and self.meta['kwargs'].get('prr', True)

    def vit_kwargs(self) -> dict:
        """Arguments of our backbone for the authors' arguments."""
        theirs = self.meta['kwargs']
        return dict(
            arch={key: theirs[key] for key in ('embed_dim', 'depth', 'num_heads')},
            img_size=theirs['img_size'],
            patch_size=theirs['patch_size'],
            gaug=self.name.startswith('locat') and theirs.get('gaug', True),
            class_token=theirs.get('class_token', True),
            num_registers=theirs.get('reg_tokens', 0),
            pos_embed='none' if 'nopos' in self.name else 'learned',
        )

    def backbone(self, **kwargs) -> LocAtViT:
        return LocAtViT(**{**self.vit_kwargs(), **kwargs}).eval()

    def classifier(self, **backbone) -> ImageClassifier:
        """The whole classifier: what follows the backbone differs per variant."""
        theirs = self.meta['kwargs']
        width, neck = theirs['embed_dim'], None
        out = dict(out_type='avg_featmap' if self.gap else 'cls_token')
        if self.prr:
            out = dict(out_type='raw', final_norm=not self.gap)
            neck = dict(
                type='locat_mm.PatchRepresentationRefinement',
                num_heads=theirs['num_heads'],
                pool='avg' if self.gap else 'cls_token',
                num_prefix_tokens=0 if self.gap else 1 + theirs.get('reg_tokens', 0),
            )
            if self.gap:
                neck.update(norm_cfg=dict(type='LN', eps=1e-6), norm_channels=width)
        return ImageClassifier(
            backbone=dict(type='locat_mm.LocAtViT', **{**self.vit_kwargs(), **out, **backbone}),
            neck=neck,
            head=dict(type='LinearClsHead', num_classes=theirs['num_classes'], in_channels=width),
        ).eval()
