"""Feature vectors and patch maps out of what backbones return."""

from typing import Any

from torch import Tensor, nn

from ..helpers import check_choice
from ..models.backbones.base import TokenBackbone

__all__ = ['KINDS', 'patch_map', 'vectors']

KINDS = ('cls', 'avg')


def vectors(backbone: nn.Module, output: Any, kind: str) -> Tensor:
    """One vector per image.

    Args:
        backbone: where ``output`` comes from; it says how its tokens lie (``cls_token``,
            ``num_prefix_tokens`` or mmpretrain's ``num_extra_tokens``) and what a vector is
            (``out_type``).
        output: what it returned: tensors, of which the last is read, or one tensor; tokens
            [B, N, C], a map [B, C, H, W] or vectors [B, C].
        kind: ``'cls'`` the class token (Jumbo's side by side), ``'avg'`` the mean patch.
            Vectors of a backbone without ``out_type`` are taken for either.

    Returns:
        ``[B, C]``.

    Raises:
        ValueError: for an unknown kind, or one that the output does not hold.
    """
    check_choice('features', kind, KINDS)
    output = _last(output)
    host: Any = getattr(backbone, 'model', backbone)  # timm's, inside TIMMBackbone
    has_class = isinstance(getattr(host, 'cls_token', None), Tensor)
    out_type = getattr(backbone, 'out_type', None)
    if output.ndim == 2 and out_type in (None, dict(cls='cls_token', avg='avg_featmap')[kind]):
        return output
    if output.ndim == 4 and kind == 'avg':
        return output.mean(dim=(2, 3))
    if output.ndim == 3 and kind == 'cls' and has_class:
        return host._read_class(output) if isinstance(host, TokenBackbone) else output[:, 0]
    prefix = getattr(host, 'num_prefix_tokens', getattr(host, 'num_extra_tokens', None))
    if output.ndim == 3 and kind == 'avg' and prefix is not None:
        return output[:, prefix:].mean(dim=1)
    layout = {2: 'vectors', 3: 'tokens', 4: 'a map'}.get(output.ndim, 'an output')
    wanted = 'class token' if kind == 'cls' else 'patches'
    other = 'avg' if kind == 'cls' else 'cls'
    raise ValueError(
        f"features={kind!r}: the {wanted} cannot be read from {type(backbone).__name__}'s output, "
        f'{layout} {list(output.shape)} (out_type={out_type!r}). Take features={other!r}, or the '
        "backbone's out_type='raw', which holds both where there is a class token"
    )


def patch_map(backbone: nn.Module, output: Any) -> Tensor:
    """The last of a backbone's maps, ``[B, C, H, W]``.

    Raises:
        ValueError: if its last output is no map.
    """
    output = _last(output)
    if output.ndim != 4:
        raise ValueError(
            f'a map [B, C, H, W] of patch features is needed, {type(backbone).__name__} gives '
            f"{list(output.shape)}: set the backbone's out_type='featmap'"
        )
    return output


def _last(output: Any) -> Tensor:
    return output[-1] if isinstance(output, (tuple, list)) else output
