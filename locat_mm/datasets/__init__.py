"""Transforms that stock pipelines lack, and broken data found by name."""

from .damage import BadSampleError, check_end, find_damage
from .guarded import GuardedPipeline, SkipLog, has_backend
from .listing import check_sources, missing_files
from .transforms import CheckAnnotations
from .wrappers import leaves

__all__ = [
    'BadSampleError',
    'CheckAnnotations',
    'GuardedPipeline',
    'SkipLog',
    'check_end',
    'check_sources',
    'find_damage',
    'has_backend',
    'leaves',
    'missing_files',
]
