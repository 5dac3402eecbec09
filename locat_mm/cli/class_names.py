"""Names and colours of a model's classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

__all__ = ['check_count', 'find_classes', 'read_class_names']


def read_class_names(path: str | Path) -> list[str]:
    """Names of classes from a text file, one per line, in the order of their values.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it names nothing, or a line between names is empty.
    """
    lines = Path(path).read_text(encoding='utf-8-sig').rstrip().splitlines()
    names = [line.strip() for line in lines]
    if not names:
        raise ValueError(f'{path} names no class: write one name per line')
    if '' in names:
        raise ValueError(f'{path}: line {names.index("") + 1} is empty, and each line is a class')
    return names


def find_classes(
    cfg: Config, meta: Mapping, names: list[str] | None
) -> tuple[list[str], list | None]:
    """Class names and palette: the user's, the checkpoint's or the data set's.

    Args:
        cfg: with a test data set.
        meta: ``classes`` and ``palette`` of the checkpoint, if it has them.
        names: the user's.

    Returns:
        the names, and the palette if one of as many colours is known.

    Raises:
        ValueError: if none of them names classes.
    """
    known = [meta, *_describe_dataset(cfg)]
    found = next((info for info in known if info.get('classes')), None)
    if names is None:
        if found is None:
            raise ValueError(
                'neither the checkpoint nor the data set of the config names the classes: write '
                'one name per line, in the order of their values, and give --classes FILE'
            )
        classes = found['classes']
        names = [classes] if isinstance(classes, str) else [str(name).strip() for name in classes]
    palette = next((info['palette'] for info in known if info.get('palette')), None)
    fits = palette is not None and len(palette) == len(names)
    return names, [list(colour) for colour in palette] if palette is not None and fits else None


def _describe_dataset(cfg: Config) -> list[Mapping]:
    """``metainfo`` in the config of the tested data set, and what its class says."""
    dataset = cfg.test_dataloader.dataset
    while dataset.get('dataset') or dataset.get('datasets'):
        dataset = dataset.get('dataset') or dataset.datasets[0]
    kind = dataset.get('type')
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        cls = registry.get(kind) if isinstance(kind, str) else kind
    return [dataset.get('metainfo') or {}, getattr(cls, 'METAINFO', {})]


def check_count(names: Sequence[str], count: int | None) -> None:
    """
    Args:
        names: of the classes.
        count: that the model predicts; None: unknown.

    Raises:
        ValueError: if they differ.
    """
    if count is not None and len(names) != count:
        raise ValueError(
            f'the model predicts {count} classes, and {len(names)} are named ({names[0]}, ...): '
            'give --classes FILE with a name for each'
        )
