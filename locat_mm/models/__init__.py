"""Backbones, necks and heads, registered with mmengine on import."""

from .backbones import LocAtViT
from .heads import LinearSegHead
from .necks import PatchRepresentationRefinement

__all__ = ['LinearSegHead', 'LocAtViT', 'PatchRepresentationRefinement']
