"""Small functions that several parts of the package need."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

__all__ = ['check_choice', 'innermost', 'listed']


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError that lists the choices if ``value`` is none of them."""
    if value not in choices:
        raise ValueError(f'unknown {name} {value!r}; choose from {", ".join(choices)}')


def innermost(model: Any) -> nn.Module:
    """The model inside the wrappers of distribution and of test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def listed(names: list[str], most: int = 8) -> str:
    """The first of some names, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
