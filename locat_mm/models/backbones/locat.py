"""GAug in any registered backbone, from a config."""

from typing import Any

from torch import nn

from ...layers import attach
from ...registry import MODELS, register

__all__ = ['LocAt']


@register(MODELS)
def LocAt(
    backbone: dict[str, Any],
    pretrained: str | None = None,
    init_cfg: dict | list | None = None,
    **options,
) -> nn.Module:
    """Build a backbone, attach GAug to it, and return the backbone itself.

    ``backbone=dict(type='locat_mm.LocAt', backbone=dict(type='VisionTransformer', ...))``. The
    host's own ``init_cfg`` loads its weights, with its keys.

    Args:
        backbone: config of any registered backbone. Its type is resolved in the config's scope.
        pretrained, init_cfg: the backbone's. mmseg's segmentors and ``--cfg-options`` set them
            here, outside of the inner config.
        **options: see :func:`locat_mm.attach`.

    Returns:
        the backbone.

    Raises:
        TypeError: if ``backbone`` is no config, or its attention is not supported.
        ValueError: as :func:`locat_mm.attach`; or if ``pretrained`` or ``init_cfg`` is in the
            backbone's config too.
    """
    if not isinstance(backbone, dict) or 'type' not in backbone:
        raise TypeError(f'backbone must be a config with a type, got {backbone!r}')
    for name, value in (('pretrained', pretrained), ('init_cfg', init_cfg)):
        if value is None:
            continue
        if backbone.get(name) is not None:
            raise ValueError(f'{name} is given twice, {value!r} and {backbone[name]!r}')
        backbone = {**backbone, name: value}
    return attach(MODELS.build(backbone), **options)
