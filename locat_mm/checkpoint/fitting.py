"""Check whether weights fit a model: translate names, adapt sizes, compare the rest."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..layers import GAugMixin
from .adapting import adapt_channels, is_of_channels, resize
from .names import merge_shared, shared_name, to_openmmlab
from .reading import StateDict

__all__ = ['Fit', 'check_fit', 'fit', 'fit_as_is', 'list_keys']

_BACKBONE = 'backbone.'
_GAUG = '.gaug.'
_CORRELATION = '.gaug.correlation.'
#: Parts of official weights that a model may lack.
_OPTIONAL = (
    'head.',
    'head_dist.',
    'attn_pool.',
    'neck.norm.',
    'norm.',
    'fc_norm.',
    'norm_patches.',
)
_HEADS = ('head.', 'decode_head.', 'auxiliary_head.')


@dataclass(frozen=True)
class Fit:
    """Which part of a state dict fits a model.

    Attributes:
        model: type of the model, for messages.
        state: name in the model -> tensor of the right shape.
        missing: names of the model without a tensor.
        unexpected: names that the model does not have.
        misshapen: name -> (shape given, shape in the model).
        unusable: name -> what is wrong with its values.
        misses_backbone: the model has a backbone, and no tensor fits it.
    """

    model: str
    state: dict[str, Tensor] = field(repr=False)
    missing: list[str]
    unexpected: list[str]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unusable: dict[str, str]
    misses_backbone: bool

    @property
    def problems(self) -> str:
        """Lines with every key that does not fit, and hints; empty if all keys fit."""
        shapes = [f'{k} {given} instead of {own}' for k, (given, own) in self.misshapen.items()]
        values = [f'{key} {problem}' for key, problem in self.unusable.items()]
        groups = {'missing': self.missing, 'unexpected': self.unexpected, 'misshapen': shapes}
        groups['unusable'] = values
        lines = [f'{group}: {list_keys(keys)}' for group, keys in groups.items() if keys]
        return ''.join(f'\n  {line}' for line in [*lines, *self._hints()])

    def error(self, source: str) -> ValueError:
        if self.unusable and not (self.missing or self.unexpected or self.misshapen):
            reason = 'it is damaged, or its values are of a type that weights cannot have.'
        else:
            reason = 'it is a checkpoint of another model.'
        if not (self.state or self.misshapen or self.unusable):
            reason += ' Not one key matches.'
        elif self.misses_backbone:
            reason += ' Nothing of it fits the backbone.'
        return ValueError(f'{source} does not fit {self.model}: {reason}{self.problems}')

    def _hints(self) -> list[str]:
        hints = []
        if any(_CORRELATION in key for key in self.unexpected):
            hints.append(
                "The file has rotated kernels and the backbone lacks them: set kernel='rotated'."
            )
        elif not self.missing and any(_GAUG in key for key in self.unexpected):
            hints.append('The file has GAug and the backbone lacks it: set gaug=True.')
        if not self.unexpected and any(_GAUG in key for key in self.missing):
            hints.append('The backbone has GAug and the file lacks it: set gaug=False.')
        for key, (given, own) in self.misshapen.items():
            if key.startswith(_HEADS) and key.endswith('.weight') and given[1:] == own[1:]:
                hints.append(f'num_classes: {given[0]} in the file, {own[0]} in the model.')
            if is_of_channels(given, own):
                hints.append(
                    f'in_channels: {given[1]} in the file, {own[1]} in the model. Only weights '
                    'that training starts from are adapted.'
                )
        return hints


def check_fit(
    module: nn.Module, state: StateDict, source: str, strict: bool = True, whole: bool = True
) -> Fit:
    """Check that weights belong to a model, comparing all keys and shapes.

    Args:
        module: a whole model or a bare backbone.
        state: the weights, under the model's own names or the official ones.
        source: what to call them in the message.
        strict: raise if any key does not fit. Otherwise raise only if no key fits the model or
            its backbone, or values are of another kind (integers for floats), NaN or infinite.
        whole: as in :func:`fit`.

    Raises:
        ValueError: with the missing, unexpected, misshapen and unusable keys.
    """
    fitted = fit(module, state, whole=whole)
    if (
        fitted.misses_backbone
        or not fitted.state
        or fitted.unusable
        or (strict and fitted.problems)
    ):
        raise fitted.error(source)
    return fitted


def fit(module: nn.Module, state: StateDict, whole: bool) -> Fit:
    """Convert weights to a model's names and shapes, and compare them with the model.

    A model with rotated kernels also takes weights of kernels along the axes: the correlations,
    which these lack, become 0, and the log says so.

    Official names are translated. Official position embeddings are square; they and Swin's bias
    tables are resized to the model's size, as timm does on loading. For a bare backbone only the
    backbone's part of a whole model's checkpoint is used. Without ``whole``, the filters on the
    image are adapted to the model's channels (:mod:`locat_mm.checkpoint.adapting`).

    Args:
        module: a bare backbone, an mmpretrain classifier (``backbone``, ``neck.norm``,
            ``head.fc``) or an mmseg segmentor.
        state: the weights.
        whole: the keys must be exactly those of the model. Otherwise official weights need only
            fill the backbone of a segmentor, and may contain a head and final norms that the
            model lacks; and a host's own weights need not fill what :func:`locat_mm.attach` added.

    Raises:
        ValueError: if a weight that layers share differs from layer to layer.
    """
    own, given = module.state_dict(), merge_shared(state)
    is_model = hasattr(module, 'backbone')
    backbone: Any = module.backbone if is_model else module
    is_official = not any(key.startswith(_BACKBONE) for key in given)
    if is_official:
        given = resize(backbone, given, is_square=True)
        translated = to_openmmlab(given, neck_norm='neck.norm.weight' in own)
        # If no name matches, the message shows the names as given.
        if is_model and not own.keys().isdisjoint(translated):
            given = translated
    elif not is_model:
        part = {k.removeprefix(_BACKBONE): v for k, v in given.items() if k.startswith(_BACKBONE)}
        given = resize(backbone, part, is_square=False)
    if not whole and not any(_GAUG in key for key in given):
        own = _without_attached(module, own)  # the host's weights have no GAug; it keeps its start
    if not whole and (is_official or not is_model):
        if is_model and not hasattr(module, 'head'):
            own = {k: v for k, v in own.items() if k.startswith(_BACKBONE)}
        names = {shared_name(key) for key in own}
        given = {k: v for k, v in given.items() if k in names or not _is_optional(k)}
    if not whole:
        given = adapt_channels(module, given)
    return _compare(module, own, given)


def fit_as_is(module: nn.Module, state: StateDict) -> Fit:
    """:func:`fit` for modules of other packages, which translate names themselves."""
    own = module.state_dict()
    if not any(_GAUG in key for key in state):
        own = _without_attached(module, own)
    return _compare(module, own, merge_shared(state))


def _without_attached(module: nn.Module, own: StateDict) -> dict[str, Tensor]:
    attached = tuple(
        f'{name}{_GAUG}'
        for name, part in module.named_modules()
        if isinstance(part, GAugMixin) and part.attached
    )
    return {key: value for key, value in own.items() if not key.startswith(attached)}


def _compare(module: nn.Module, own: StateDict, given: StateDict) -> Fit:
    given = _with_correlations(module, own, given)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    fitting, missing, misshapen, unusable = {}, [], {}, {}
    for key, value in own.items():
        name = shared_name(key)
        if name not in given:
            missing.append(key)
        elif given[name].shape != value.shape:
            misshapen[key] = tuple(given[name].shape), tuple(value.shape)
        else:
            problem = _find_problem(given[name], value, key in parameters)
            if problem is None:
                fitting[key] = given[name]
            else:
                unusable[key] = problem
    names = {shared_name(key) for key in own}
    unexpected = [key for key in given if key not in names]
    in_backbone = [key for key in own if key.startswith(_BACKBONE)]
    misses_backbone = bool(in_backbone) and not any(key in fitting for key in in_backbone)
    return Fit(
        _describe(module), fitting, missing, unexpected, misshapen, unusable, misses_backbone
    )


def _with_correlations(module: nn.Module, own: StateDict, given: StateDict) -> StateDict:
    """Weights of kernels along the axes with correlations of 0, if the model has rotated ones."""
    absent = {
        key: torch.zeros_like(value, device='cpu')
        for key, value in own.items()
        if _CORRELATION in key and key.replace(_CORRELATION, '.gaug.log_var.') in given
    }
    if not absent or any(_CORRELATION in key for key in given):
        return given
    print_log(
        f'the weights have Gaussians along the axes, {_describe(module)} has rotated ones: '
        f'{list_keys(absent)} are set to 0, which changes no output',
        'current',
    )
    return {**given, **absent}


def _find_problem(given: Tensor, own: Tensor, is_parameter: bool) -> str | None:
    """Why values cannot be the model's, or None. Another precision is allowed."""
    kinds = [(t.is_floating_point(), t.is_complex(), t.dtype == torch.bool) for t in (given, own)]
    if kinds[0] != kinds[1] or given.is_quantized:
        return f'{given.dtype} instead of {own.dtype}'
    if given.layout != torch.strided:
        return f'{given.layout} instead of {torch.strided}'
    if given.is_meta or not given.is_floating_point():
        return None
    values = given.to(own.dtype)
    # A buffer may be a mask with -inf.
    if values.isnan().any() or (is_parameter and values.isinf().any()):
        return 'with NaN or infinity'
    return None


def _is_optional(key: str) -> bool:
    return key.removeprefix(_BACKBONE).startswith(_OPTIONAL)


def _describe(module: nn.Module) -> str:
    name = type(module).__name__
    if hasattr(module, 'backbone'):
        return f'{name} with {type(module.backbone).__name__}'
    return name


def list_keys(keys: Iterable[str]) -> str:
    """All keys, shortened: those that differ only in a number become ``blocks.[0-11].bias``."""
    patterns: list[tuple] = [
        tuple(frozenset([int(p)]) if p.isdecimal() and str(int(p)) == p else p for p in parts)
        for parts in (key.split('.') for key in keys)
    ]
    for place in reversed(range(max(map(len, patterns), default=0))):
        merged: dict[tuple, frozenset] = {}
        for pattern in patterns:
            number = pattern[place] if place < len(pattern) else ''
            if isinstance(number, frozenset):
                pattern = (*pattern[:place], None, *pattern[place + 1 :])
                merged[pattern] = merged.get(pattern, frozenset()) | number
            else:
                merged[pattern] = frozenset()
        patterns = [
            tuple(numbers if part is None else part for part in pattern)
            for pattern, numbers in merged.items()
        ]
    return ', '.join('.'.join(map(_write_part, pattern)) for pattern in patterns)


def _write_part(part: str | frozenset[int]) -> str:
    if isinstance(part, str):
        return part
    runs: list[list[int]] = []
    for number in sorted(part):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ','.join(str(r[0]) if len(r) == 1 else f'{r[0]}-{r[-1]}' for r in runs)
    return text if len(part) == 1 else f'[{text}]'
