"""Backbones, preprocessors, necks, heads and algorithms, registered with mmengine on import."""

from . import mmpretrain_names, timm_models
from .backbones import LocAt, LocAtJumbo, LocAtRoPEViT, LocAtSwin, LocAtViT, TIMMBackbone
from .data_preprocessors import MultiChannelSegDataPreProcessor
from .heads import LinearSegHead
from .necks import PatchRepresentationRefinement
from .selfsup import DINO, DenseDINO, DINOHead, DINOLoss

__all__ = [
    'DINO',
    'DINOHead',
    'DINOLoss',
    'DenseDINO',
    'LinearSegHead',
    'LocAt',
    'LocAtJumbo',
    'LocAtRoPEViT',
    'LocAtSwin',
    'LocAtViT',
    'MultiChannelSegDataPreProcessor',
    'PatchRepresentationRefinement',
    'TIMMBackbone',
    'mmpretrain_names',
    'timm_models',
]
