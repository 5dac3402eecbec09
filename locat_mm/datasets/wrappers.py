"""The data sets inside wrappers such as ConcatDataset and RepeatDataset."""

from collections.abc import Iterator
from typing import Any

__all__ = ['leaves']


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers, or the data set itself if it is no wrapper.

    Args:
        dataset: a data set or its config.
    """
    inner = _value(dataset, 'datasets') or _value(dataset, 'dataset')
    if inner is None:
        yield dataset
        return
    for child in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from leaves(child)


def _value(dataset: Any, name: str) -> Any:
    return dataset.get(name) if isinstance(dataset, dict) else getattr(dataset, name, None)
