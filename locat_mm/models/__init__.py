"""Backbones, necks and heads, registered with mmengine on import."""

from .backbones import LocAtJumbo, LocAtRoPEViT, LocAtSwin, LocAtViT
from .heads import LinearSegHead
from .necks import PatchRepresentationRefinement

__all__ = [
    'LinearSegHead',
    'LocAtJumbo',
    'LocAtRoPEViT',
    'LocAtSwin',
    'LocAtViT',
    'PatchRepresentationRefinement',
]
