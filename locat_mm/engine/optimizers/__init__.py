"""Optimizer construction."""

from .layer_decay import SegmentorOptimWrapperConstructor

__all__ = ['SegmentorOptimWrapperConstructor']
