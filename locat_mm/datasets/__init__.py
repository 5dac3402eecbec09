"""Transforms that stock pipelines lack."""

from .transforms import CheckAnnotations

__all__ = ['CheckAnnotations']
