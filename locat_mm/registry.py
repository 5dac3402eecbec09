"""Registries of locat_mm: children of mmengine's roots.

``type='locat_mm.X'`` resolves from every scope without an import, because mmengine
imports ``locat_mm.registry`` for the scope and then the ``locations`` below.
``type='X'`` resolves from every scope once ``locat_mm`` is imported
(``custom_imports=dict(imports=['locat_mm'])``), because :func:`register` also enters the
class at mmengine's root, where child registries look last.
"""

from collections.abc import Callable
from typing import TypeVar

from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

__all__ = [
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'STRATEGIES',
    'TRANSFORMS',
    'register',
]

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


def register(registry: Registry) -> Callable[[_T], _T]:
    """Decorator: register a class, or a function that builds, as ``locat_mm.NAME`` and ``NAME``.

    Only for names that no other OpenMMLab package is likely to use, since the root registry
    is shared by all of them.

    Args:
        registry: one of the registries of this module.
    """
    assert registry.parent is not None

    def wrap(cls: _T) -> _T:
        registry.register_module(module=cls)
        registry.parent.register_module(module=cls)
        return cls

    return wrap
