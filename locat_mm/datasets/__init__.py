"""Errors that name broken files and annotations, and a check of annotations for pipelines."""

from .file_damage import BadSampleError, check_end, find_damage
from .guarded_pipeline import GuardedPipeline, SkipLog, has_backend
from .source_checks import check_sources, missing_files
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
