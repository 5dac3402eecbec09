"""Small functions that several parts of the package need."""

import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

__all__ = [
    'add_note',
    'check_choice',
    'cpu_name',
    'doing',
    'import_optional',
    'innermost',
    'listed',
]


@contextmanager
def doing(what: str | Callable[[], str]) -> Iterator[None]:
    """Context manager or decorator: note on every passing exception what the program was doing.

    Args:
        what: for example ``'reading the config'``; a function is called after the error. The note
            is this text after ``'while '``.
    """
    try:
        yield
    except Exception as error:
        add_note(error, f'while {what if isinstance(what, str) else what()}')
        raise


def add_note(error: Exception, note: str) -> None:
    """``error.add_note(note)`` (PEP 678), which Python 3.10 lacks."""
    vars(error)['__notes__'] = [*getattr(error, '__notes__', ()), note]


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError that lists the choices if ``value`` is none of them."""
    if value not in choices:
        raise ValueError(f'unknown {name} {value!r}; choose from {", ".join(choices)}')


def cpu_name() -> str:
    """The model of the CPU; where the system does not say it, the architecture."""
    cpu = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.+)', cpu.read_text()) if cpu.exists() else None
    return found[1] if found else platform.machine()


def innermost(model: Any) -> nn.Module:
    """The model inside wrappers for distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def listed(names: list[str], most: int = 8) -> str:
    """The first ``most`` names, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def import_optional(package: str, extra: str, purpose: str) -> Any:
    """Import a package that only some users need.

    Args:
        package: to import.
        extra: of ``setup.py`` that installs it.
        purpose: what it is needed for, as the beginning of the message.

    Raises:
        ModuleNotFoundError: if it is not installed, with the command that installs it.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f'{purpose} needs {package}, which is not installed: pip install {package} (or, in a '
            f"clone of locat_mm, pip install '.[{extra}]')",
            name=package,
        ) from None
