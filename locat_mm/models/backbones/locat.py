"""LocAt around any registered backbone, as one entry of a config."""

from typing import Any

from torch import nn

from ...layers import attach
from ...registry import MODELS, register

__all__ = ['LocAt']


@register(MODELS)
def LocAt(backbone: dict[str, Any], pretrained: str | None = None, **options) -> nn.Module:
    """Build a backbone and attach GAug to it; what comes out is the backbone itself.

    ``backbone=dict(type='locat_mm.LocAt', backbone=dict(type='VisionTransformer', ...))``. The
    host's own ``init_cfg`` loads its weights, with its keys.

    Args:
        backbone: config of any registered backbone; its type is looked up where the config's
            other types are.
        pretrained: mmseg's old argument of the same name, handed to the backbone.
        **options: see :func:`locat_mm.attach`.

    Returns:
        the backbone.

    Raises:
        TypeError: if ``backbone`` is no config, or its attention is not supported.
        ValueError: as :func:`locat_mm.attach`.
    """
    if not isinstance(backbone, dict) or 'type' not in backbone:
        raise TypeError(f'backbone must be a config with a type, got {backbone!r}')
    if pretrained is not None:
        backbone = {**backbone, 'pretrained': pretrained}
    return attach(MODELS.build(backbone), **options)
