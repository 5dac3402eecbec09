"""GAug in any registered backbone, from a config."""

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from ...layers import attach
from ...registry import MODELS, register

__all__ = ['LocAt']


@register(MODELS)
def LocAt(
    backbone: dict[str, Any] | None = None,
    gaug: bool = True,
    start: str = 'identity',
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
    attention_backend: str | None = None,
    layers: int | Sequence[int] | slice | None = None,
    variance: float | Sequence[float] | None = None,
    alpha: float | Sequence[float] | None = None,
    units: str = 'patches',
    alpha_scale: float = 1.0,
    train: str = 'all',
    pretrained: str | None = None,
    init_cfg: dict | list | None = None,
    kernel: str = 'axis',
    **unknown,
) -> nn.Module:
    """Build a backbone and attach GAug to it. The result is the backbone itself.

    ``backbone=dict(type='locat_mm.LocAt', backbone=dict(type='VisionTransformer', ...))``. The
    host's own ``init_cfg`` loads its weights, with its keys. A config that inherits another
    backbone needs ``_delete_=True`` beside the type.

    Args:
        backbone: config of any registered backbone; its type is looked up where the config's
            other types are.
        gaug, start, grid_size, num_prefix_tokens, attention_backend, kernel, layers, variance,
            alpha, units, alpha_scale, train: see :func:`locat_mm.attach`.
        pretrained, init_cfg: the backbone's, if they are set from outside, as by mmseg's
            segmentors and ``--cfg-options``.
        **unknown: collected to name them in the error.

    Returns:
        the backbone.

    Raises:
        TypeError: if ``backbone`` is no config, its attention is not supported, or an argument is
            unknown. Arguments that a config merged in from another backbone are named, with the
            corrected lines.
        ValueError: as :func:`locat_mm.attach`; or if ``pretrained`` or ``init_cfg`` is given here
            and in the backbone's config.
    """
    is_config = isinstance(backbone, dict) and 'type' in backbone
    if unknown:
        raise TypeError(_explain(sorted(unknown), backbone if is_config else None))
    if not isinstance(backbone, dict) or 'type' not in backbone:
        raise TypeError(f'backbone must be a config with a type, got {backbone!r}')
    for name, value in (('pretrained', pretrained), ('init_cfg', init_cfg)):
        if value is None or value == backbone.get(name):
            continue
        if backbone.get(name) is not None:
            raise ValueError(
                f'{name} is given twice, {value!r} and {backbone[name]!r}. If the first is '
                f'inherited from another config: {_correct(backbone)}'
            )
        backbone = {**backbone, name: value}
    return attach(
        MODELS.build(backbone),
        gaug,
        start,
        grid_size=grid_size,
        num_prefix_tokens=num_prefix_tokens,
        attention_backend=attention_backend,
        kernel=kernel,
        layers=layers,
        variance=variance,
        alpha=alpha,
        units=units,
        alpha_scale=alpha_scale,
        train=train,
    )


def _explain(unknown: list[str], backbone: dict[str, Any] | None) -> str:
    """What is wrong with arguments that LocAt does not have."""
    own = [name for name in inspect.signature(LocAt).parameters if name != 'unknown']
    misspelt = {name: difflib.get_close_matches(name, own, n=1, cutoff=0.8) for name in unknown}
    if all(misspelt.values()):
        hints = ', '.join(f'{close[0]!r} for {name!r}' for name, close in misspelt.items())
        return f'LocAt has no argument {", ".join(unknown)}. Did you mean {hints}?'
    return (
        f'LocAt has no argument {", ".join(unknown)}; it has {", ".join(own)}. If you did not '
        'write these, they are inherited: mmengine merges the backbone of the base config into '
        f'the wrapper. {_correct(backbone)}'
    )


def _correct(backbone: dict[str, Any] | None) -> str:
    """The lines of a config that replaces an inherited backbone."""
    inner = '_base_.model.backbone' if backbone is None else f"dict(type='{backbone['type']}', ...)"
    return (
        'Add _delete_=True, which drops what is inherited:\n\n'
        'model = dict(\n'
        '    backbone=dict(\n'
        '        _delete_=True,\n'
        "        type='locat_mm.LocAt',\n"
        f'        backbone={inner},\n'
        '    )\n'
        ')\n\n'
        'backbone=_base_.model.backbone keeps the backbone of the base config as it is, and '
        'backbone=dict(_base_.model.backbone, drop_path_rate=0.1) changes one argument.'
    )
