"""Feature vectors and patch maps from the outputs of backbones."""

from typing import Any

from torch import Tensor, nn

from ..helpers import check_choice
from ..models.backbones.base import TokenBackbone

__all__ = ['KINDS', 'last_output', 'patch_map', 'vectors']

KINDS = ('cls', 'avg')


def vectors(backbone: nn.Module, output: Any, kind: str) -> Tensor:
    """One vector per image.

    Args:
        backbone: the source of ``output``. Its attributes tell the layout of the tokens
            (``cls_token``, ``num_prefix_tokens`` or mmpretrain's ``num_extra_tokens``) and the
            meaning of a vector (``out_type``).
        output: its output: one tensor, or several, of which the last is read. Tokens [B, N, C], a
            map [B, C, H, W] or vectors [B, C].
        kind: ``'cls'`` the class token (Jumbo's side by side), ``'avg'`` the mean of the patches.
            A vector of a backbone without ``out_type`` is valid for both kinds.

    Returns:
        ``[B, C]``.

    Raises:
        ValueError: for an unknown kind, or one that the output does not hold.
    """
    check_choice('features', kind, KINDS)
    output = last_output(output)
    host: Any = getattr(backbone, 'model', backbone)  # the timm model inside TIMMBackbone
    has_class = isinstance(getattr(host, 'cls_token', None), Tensor)
    out_type = getattr(backbone, 'out_type', None)
    if output.ndim == 2 and out_type in (None, dict(cls='cls_token', avg='avg_featmap')[kind]):
        return output
    if output.ndim == 4 and kind == 'avg':
        return output.mean(dim=(2, 3))
    if output.ndim == 3 and kind == 'cls' and has_class:
        return host.read_class(output) if isinstance(host, TokenBackbone) else output[:, 0]
    prefix = getattr(host, 'num_prefix_tokens', getattr(host, 'num_extra_tokens', None))
    if output.ndim == 3 and kind == 'avg' and prefix is not None:
        return output[:, prefix:].mean(dim=1)
    layout = {2: 'vectors', 3: 'tokens', 4: 'a map'}.get(output.ndim, 'an output')
    wanted, other = ('class token', 'avg') if kind == 'cls' else ('patches', 'cls')
    raise ValueError(
        f"features={kind!r}: the {wanted} cannot be read from {type(backbone).__name__}'s output, "
        f'{layout} {list(output.shape)} (out_type={out_type!r}). Take features={other!r}, or the '
        "backbone's out_type='raw', which holds both where there is a class token"
    )


def patch_map(backbone: nn.Module, output: Any) -> Tensor:
    """The last map of a backbone's output, ``[B, C, H, W]``.

    Raises:
        ValueError: if the last output is no map.
    """
    output = last_output(output)
    if output.ndim != 4:
        raise ValueError(
            f'a map [B, C, H, W] of patch features is needed, {type(backbone).__name__} gives '
            f"{list(output.shape)}: set the backbone's out_type='featmap'"
        )
    return output


def last_output(output: Any) -> Tensor:
    """The last of several outputs, or the only one."""
    return output[-1] if isinstance(output, (tuple, list)) else output
