"""What value 0 of a mask means: a class, or no label (mmseg's ``reduce_zero_label``)."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import DATASETS

from ..config import kind_of, walk
from .report import ValueUse

__all__ = ['check_zero_label', 'choose_zero_label']

#: First names in a list of classes that can only be meant for value 0.
_NAMES_OF_ZERO = ('background', 'bg', 'unlabelled', 'unlabeled', 'void', 'ignore', 'none')


def check_zero_label(loader: str, cfg: dict, scope: str) -> None:
    """Check that a data set and its pipeline agree about value 0 of the masks.

    mmseg finds the difference at the first sample, by an assertion that names no setting.

    Args:
        loader: the loader of the data set, for the message.
        cfg: config of the data set, or of a wrapper: data sets inside it are checked, too.
        scope: of its type.

    Raises:
        ValueError: if they differ.
    """
    for _, dataset in walk(cfg):
        if 'pipeline' not in dataset:
            continue
        for _, step in walk(dataset['pipeline']):
            in_pipeline = step.get('reduce_zero_label')
            if in_pipeline is None or not kind_of(step).endswith('Annotations'):
                continue
            in_dataset = dataset.get('reduce_zero_label')
            given = 'is set' if in_dataset is not None else 'is the default'
            if in_dataset is None:
                in_dataset = _default(dataset['type'], scope)
            if in_dataset is not None and bool(in_dataset) != bool(in_pipeline):
                raise ValueError(
                    f'{loader}: reduce_zero_label={in_pipeline} in the LoadAnnotations of the '
                    f'pipeline, but {in_dataset} {given} for {dataset["type"]}. Give both the same '
                    'value. True: value 0 of the masks has no label, and value 1 is the first '
                    'class. False: value 0 is the first class. For one place to set it, leave it '
                    'out of LoadAnnotations and write reduce_zero_label=... in '
                    f'{loader}.dataset. tools/misc/make_config.py writes such a config for your '
                    'own folder.'
                )


def _default(kind: str | type, scope: str) -> Any:
    with DATASETS.switch_scope_and_registry(scope) as registry:
        cls = registry.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        return None
    for ancestor in cls.__mro__:  # many classes pass **kwargs on to BaseSegDataset
        parameter = inspect.signature(ancestor).parameters.get('reduce_zero_label')
        if parameter is not None:
            return parameter.default
    return None


def choose_zero_label(
    names: Sequence[str],
    uses: Mapping[int, ValueUse],
    forced: bool | None = None,
    source: str = 'classes.txt',
) -> tuple[bool, str]:
    """Choose ``reduce_zero_label`` from the names of the classes and the values of the masks.

    With n names: if the highest value is at most n - 1, value 0 is the first class. If it is n,
    the names are for 1..n, and value 0 has no label. Value 255 never has one.

    Args:
        names: of the classes, in the order of their values.
        uses: value of the masks -> where it occurs.
        forced: the user's choice.
        source: of the names, for messages.

    Returns:
        the value for ``reduce_zero_label``, and the reason.

    Raises:
        ValueError: if a value has no class.
    """
    values = sorted(value for value in uses if value != 255)
    if not values:
        raise ValueError(
            'the masks hold value 255 only, which stands for no label: nothing can be learned'
        )
    if values == [0] and 255 in uses:
        raise ValueError(
            'the masks hold the values 0 and 255 only. 255 stands for no label, so value 0 would '
            'be the only class. If 255 is an object, convert the masks to the values 0 and 1: '
            'tools/dataset_converters/colour_masks.py MASKS NEW_MASKS'
        )
    count, highest = len(names), values[-1]
    is_for_zero = names[0].lower() in _NAMES_OF_ZERO
    reduced = forced if forced is not None else highest == count and not is_for_zero
    nameless = [value for value in values if value >= count + reduced]
    if nameless:
        listed = '; '.join(
            f'value {value} in {uses[value].masks} masks, such as {uses[value].first}'
            for value in nameless[:5]
        )
        first = f'value {int(reduced)} is {names[0]!r}'
        hint = (
            '. If value 0 has no label and that name is for value 1: --reduce-zero-label'
            if forced is None and highest == count
            else ''
        )
        raise ValueError(
            f'{source} has {count} names, where {first}: there is no name for {listed}'
            f'{"; ..." if len(nameless) > 5 else ""}. Add the names, a name a line in the order '
            f'of the values{hint}'
        )
    if forced is not None:
        return reduced, 'as the command says'
    if reduced:
        return True, (
            f'{source} has {count} names and the highest value is {highest}, so the names are for '
            f'the values 1 to {count}. Value 0 has no label'
        )
    reason = (
        f'{source} has {count} names and the highest value is {highest}, so value 0 is the first '
        f'name, {names[0]!r}'
    )
    if 0 not in uses:
        reason += '. No mask holds it: if the names begin at value 1, add --reduce-zero-label'
    return False, reason
