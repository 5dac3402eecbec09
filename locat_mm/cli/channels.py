"""Statistics of channels as lines of a config."""

from collections.abc import Sequence
from typing import Any

__all__ = ['as_lines', 'reverses']


def reverses(cfg: Any, channels: int) -> bool:
    """Whether the preprocessor of a config reverses channels before it subtracts the mean.

    Args:
        cfg: of mmseg (``bgr_to_rgb``) or mmpretrain (``to_rgb``).
        channels: of the images; OpenMMLab reverses three channels only.
    """
    names = ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb')
    return channels == 3 and any(_preprocessor(cfg).get(name) for name in names)


def as_lines(cfg: Any, mean: Sequence[float], std: Sequence[float]) -> str:
    """The settings of a preprocessor, to be pasted into a config."""
    settings = [
        f'mean=[{", ".join(f"{value:.6g}" for value in mean)}],',
        f'std=[{", ".join(f"{value:.6g}" for value in std)}],',
    ]
    in_model = cfg.get('default_scope') == 'mmseg' or 'data_preprocessor' in cfg.get('model', {})
    if len(mean) not in (1, 3) and cfg.get('default_scope') == 'mmseg':
        settings.insert(0, "type='locat_mm.MultiChannelSegDataPreProcessor',")
        settings.append('bgr_to_rgb=False,')
    if in_model:
        inside = ''.join(f'        {line}\n' for line in settings)
        return f'model = dict(\n    data_preprocessor=dict(\n{inside}    ),\n)'
    inside = ''.join(f'    {line}\n' for line in settings)
    return f'data_preprocessor = dict(\n{inside})'


def _preprocessor(cfg: Any) -> dict:
    model = cfg.get('model') or {}
    return model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
