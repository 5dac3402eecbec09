"""Backbones, necks and heads, registered with mmengine on import."""

from .backbones import LocAt, LocAtJumbo, LocAtRoPEViT, LocAtSwin, LocAtViT, TIMMBackbone
from .heads import LinearSegHead
from .necks import PatchRepresentationRefinement

__all__ = [
    'LinearSegHead',
    'LocAt',
    'LocAtJumbo',
    'LocAtRoPEViT',
    'LocAtSwin',
    'LocAtViT',
    'PatchRepresentationRefinement',
    'TIMMBackbone',
]
