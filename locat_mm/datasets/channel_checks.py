"""Checks that model, preprocessor and pipelines of a config are for the same channels."""

from collections.abc import Iterable, Iterator
from typing import Any

from ..config import image_channels, kind_of, walk
from .wrappers import leaves

__all__ = ['LOADERS', 'check_channels', 'count_windows']

#: Loading transforms of images of any number of channels.
LOADERS = ('LoadGeoTIFF', 'LoadNIfTI')
_ANY_CHANNELS = 'MultiChannelSegDataPreProcessor'
#: Preprocessors with a value per channel. Those of two images, for example, have other lists.
_PREPROCESSORS = (_ANY_CHANNELS, 'SegDataPreProcessor', 'ClsDataPreprocessor', 'None')
#: Transforms for 8-bit pictures in colour -> why they cannot be used for others.
_FOR_PICTURES = {
    'AdjustGamma': 'converts to 8 bits',
    'CLAHE': 'converts to 8 bits',
    'PhotoMetricDistortion': 'clips to 8 bits and takes three channels, of four it drops one',
    'RGB2Gray': 'takes three channels',
}
#: Transforms -> the most channels that OpenCV lets them have, and what to use.
_LIMITED = {'Pad': (4, 'leave it out: data_preprocessor.size pads')}


def check_channels(cfg: Any) -> None:
    """Check the numbers of channels in a config.

    Args:
        cfg: of mmseg or mmpretrain.

    Raises:
        ValueError: if ``data_preprocessor.mean`` or ``std`` has neither one value nor one per
            channel of the backbone; if the preprocessor takes three channels only, or reverses
            bands; if a loading transform gives another number; if a pipeline has a transform that
            is for 8-bit pictures in colour.
    """
    model = cfg.get('model') or {}
    if not isinstance(model.get('backbone'), dict):
        return
    own = image_channels(model)
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    is_known = kind_of(preprocessor) in _PREPROCESSORS
    if is_known and isinstance(preprocessor.get('mean'), (list, tuple)):
        _check_preprocessor(preprocessor, own)
    for name in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{name}_dataloader') or {}).get('dataset')
        for leaf in leaves(dataset) if dataset else ():
            steps = list(_steps(leaf.get('pipeline') or ()))
            _check_pipeline(f'{name}_dataloader', steps, own, preprocessor)


def count_windows(steps: Iterable[dict]) -> int:
    """Windows of the CTWindow of a pipeline, each of which gives a channel; 0 without one."""
    windows = next((step.get('window') for step in steps if kind_of(step) == 'CTWindow'), ())
    return len(windows) if isinstance(windows, (list, tuple)) else 1


def _steps(pipeline: Any) -> Iterator[dict]:
    for _, step in walk(list(pipeline)):
        if 'type' in step:
            yield step


def _check_preprocessor(preprocessor: dict, own: int) -> None:
    mean, std = preprocessor['mean'], preprocessor.get('std') or ()
    kind = kind_of(preprocessor)
    hint = 'tools/misc/channel_stats.py CONFIG prints the values of the training images'
    for name, values in (('mean', mean), ('std', std)):
        if len(values) not in (1, own):
            raise ValueError(
                f'data_preprocessor.{name} has {len(values)} values, and '
                f'model.backbone.in_channels is {own}: give one value per channel, or another '
                f'in_channels. {hint}'
            )
    if len(mean) not in (1, 3) and kind == 'SegDataPreProcessor':
        raise ValueError(
            f"mmseg's SegDataPreProcessor takes 1 or 3 values of mean and std, got {len(mean)}: "
            f"set data_preprocessor.type='locat_mm.{_ANY_CHANNELS}'"
        )


def _check_pipeline(loader: str, steps: list[dict], own: int, preprocessor: dict) -> None:
    kinds = [kind_of(step) for step in steps]
    found = next((step for step in steps if kind_of(step) in LOADERS), None)
    given = None
    if found is not None:
        kind = kind_of(found)
        chosen = found.get('bands' if kind == 'LoadGeoTIFF' else 'channels')
        given = len(chosen) if chosen else None
        windows = count_windows(steps)
        if windows > 1:
            given = windows
        if given not in (None, own):
            raise ValueError(
                f'{loader}: {kind} and what follows it give {given} channels, and '
                f'model.backbone.in_channels is {own}: give both the same'
            )
        for name in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'):
            if own == 3 and preprocessor.get(name):
                raise ValueError(
                    f'{loader}: {kind} gives channels in the order of the config, and '
                    f'data_preprocessor.{name}=True would reverse them: set {name}=False'
                )
    if found is None and own == 3:
        return
    is_picture = own == 3 and 'CTWindow' in kinds
    for step, kind in zip(steps, kinds, strict=True):
        if kind in _FOR_PICTURES and not is_picture:
            raise ValueError(
                f'{loader}: {kind} {_FOR_PICTURES[kind]}: use locat_mm.RandomIntensity, or leave '
                'it out'
            )
        if kind in _LIMITED and own > _LIMITED[kind][0]:
            most, advice = _LIMITED[kind]
            raise ValueError(f'{loader}: {kind} takes at most {most} channels: {advice}')
        if kind == 'RandomCutOut' and own != len(step.get('fill_in', (0, 0, 0))):
            raise ValueError(
                f'{loader}: RandomCutOut needs a value of fill_in per channel, {own} in all: '
                f'fill_in={(0,) * own}'
            )
