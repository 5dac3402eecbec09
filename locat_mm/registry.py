"""Registries of locat_mm: children of mmengine's root registries.

``type='locat_mm.X'`` works in every scope without an import, because mmengine imports
``locat_mm.registry`` for the scope and then the ``locations`` below. ``type='X'`` works in every
scope once ``locat_mm`` is imported (``custom_imports=dict(imports=['locat_mm'])``), because
:func:`register` also adds the class to mmengine's root registry, where child registries look last.
"""

from collections.abc import Callable
from typing import TypeVar

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

__all__ = [
    'DATASETS',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'STRATEGIES',
    'TRANSFORMS',
    'register',
]

DATASETS = Registry(
    'dataset', parent=ROOT_DATASETS, scope='locat_mm', locations=['locat_mm.datasets']
)
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='locat_mm', locations=['locat_mm.engine'])
LOOPS = Registry('loop', parent=ROOT_LOOPS, scope='locat_mm', locations=['locat_mm.evaluation'])
METRICS = Registry(
    'metric', parent=ROOT_METRICS, scope='locat_mm', locations=['locat_mm.evaluation']
)
MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope='locat_mm',
    locations=['locat_mm.layers', 'locat_mm.models', 'locat_mm.evaluation'],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='locat_mm',
    locations=['locat_mm.engine'],
)
STRATEGIES = Registry(
    'strategy', parent=ROOT_STRATEGIES, scope='locat_mm', locations=['locat_mm.engine.strategies']
)
TRANSFORMS = Registry(
    'transform', parent=ROOT_TRANSFORMS, scope='locat_mm', locations=['locat_mm.datasets']
)


_T = TypeVar('_T', bound=Callable)


def register(registry: Registry, *old_names: str) -> Callable[[_T], _T]:
    """Decorator: register a class, or a function that builds, as ``locat_mm.NAME`` and ``NAME``.

    Only for names that no other OpenMMLab package is likely to use, because all of them share
    the root registry.

    Args:
        registry: one of the registries of this module.
        *old_names: further names, for configs of earlier versions.
    """
    parent = registry.parent
    assert parent is not None

    def wrap(cls: _T) -> _T:
        for target in (registry, parent):
            target.register_module([cls.__name__, *old_names], module=cls)
        return cls

    return wrap
