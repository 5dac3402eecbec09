"""Weights in: timm's, the authors' and our own, without executing a pickle.

Loading is strict. What does not fit is listed in the error, because a backbone that silently
keeps its random weights looks like a bad method.
"""

import argparse
import logging
import math
import pickle
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import PretrainedInit
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

__all__ = ['check_fit', 'init_from_pretrained', 'load_official', 'read_state_dict']

StateDict = Mapping[str, Tensor]

#: Parts that a target may be configured without.
_OPTIONAL = ('head.', 'norm.', 'fc_norm.', 'norm_patches.')
_WRAPPERS = ('state_dict', 'model')
#: torch's allowlist is one per process.
_ALLOWLIST_LOCK = threading.Lock()
#: What a truncated or garbled file raises, by where the damage is.
_UNREADABLE = (
    *(pickle.UnpicklingError, SafetensorError, EOFError, RuntimeError, struct.error),
    *(AttributeError, IndexError, KeyError, TypeError, ValueError),
)


def load_official(
    module: nn.Module, source: str | Path | StateDict, strict: bool = True
) -> nn.Module:
    """Load weights of the authors' code or of timm.

    Args:
        module: a bare backbone, an mmpretrain classifier (``backbone``, ``neck.norm`` from
            ``fc_norm``, ``head.fc`` from ``head``) or an mmseg segmentor (its backbone alone).
        source: a state dict, a ``.pth`` / ``.pt`` or a ``.safetensors`` file. No pickle is
            executed. Position embeddings are resized when the grid differs.
        strict: raise on missing and unexpected keys instead of logging them. Keys of
            ``head``, ``norm``, ``fc_norm`` and ``norm_patches`` may stay over where the target
            is configured without that part. A weight that layers share may stand once or
            under each of its names.

    Returns:
        ``module``.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file cannot be read safely; if a key is misshapen, or nothing
            matches; with ``strict`` if a key is missing or unexpected.
    """
    if isinstance(source, (str, Path)):
        state, name = read_state_dict(source), str(source)
    elif isinstance(source, Mapping):
        state, name = dict(source), 'the state dict'
    else:
        raise TypeError(f'source must be a path or a state dict, got {type(source).__name__}')
    _load(module, _to_target_names(module, _resize_pos_embed(module, state)), name, strict)
    return module


def init_from_pretrained(backbone: nn.Module, init_cfg: dict | list | None) -> bool:
    """``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)``, but strict.

    A square position embedding of another image size is resized.

    Args:
        backbone: the bare backbone to load into.
        init_cfg: mmengine's; without ``Pretrained`` it is left to mmengine.

    Returns:
        whether the weights were loaded.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_official`; also if ``Pretrained`` stands
            beside other initialisers.
    """
    given = init_cfg if isinstance(init_cfg, list) else [init_cfg] if init_cfg else []
    pretrained = [cfg for cfg in given if cfg.get('type') in ('Pretrained', PretrainedInit)]
    if not pretrained:
        return False
    if len(given) > 1:
        raise ValueError(f'Pretrained fills the whole backbone, so give it alone: {init_cfg}')
    path, prefix = pretrained[0]['checkpoint'], pretrained[0].get('prefix')
    state = read_state_dict(path)
    if prefix:
        prefix = prefix if prefix.endswith('.') else f'{prefix}.'
        kept = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        if not kept:
            raise ValueError(f'{path} has no key that starts with {prefix!r}: {", ".join(state)}')
        state = kept
    ours, theirs = backbone.state_dict().get('pos_embed'), state.get('pos_embed')
    if ours is not None and theirs is not None and ours.shape != theirs.shape:
        state = _resize_pos_embed(backbone, state)
    _load(backbone, state, str(path), strict=True)
    print_log(f'backbone weights loaded from {path}', logger='current')
    return True


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint without executing a pickle.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``: a state dict, possibly under
            ``state_dict`` or ``model``, as mmengine and timm write it.

    Returns:
        name -> tensor on the CPU, without a ``module.`` in front.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is an address, unreadable, needs a pickle executed, or holds no state
            dict.
    """
    if '://' in str(path):
        raise ValueError(f'{path} is an address: download the file and give its path')
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path}')
    try:
        content = load_file(path) if path.suffix == '.safetensors' else _load_plain_data(path)
    except _UNREADABLE as error:
        # torch's own text goes on to advise the unsafe load.
        reason = str(error).rpartition('WeightsUnpickler error: ')[2].partition('\n')[0]
        raise ValueError(
            f'{path} cannot be read as weights alone, and nothing else is executed: {reason}'
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(f'{path} holds no state dict: {type(content).__name__}')
    return _strip_module(content)


def _load_plain_data(path: Path) -> Any:
    """torch's weights-only unpickler with a few plain classes more."""
    # torch.serialization.safe_globals would on leaving also forget what was allowed before.
    with _ALLOWLIST_LOCK:
        before = torch.serialization.get_safe_globals()
        torch.serialization.add_safe_globals(_safe_globals())
        try:
            return torch.load(path, map_location='cpu', weights_only=True)
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _safe_globals() -> list:
    """Plain data beside the weights: timm's arguments, mmengine's log history and schedule."""
    core = np._core if hasattr(np, '_core') else np.core  # type: ignore[attr-defined]
    return [
        argparse.Namespace,
        HistoryBuffer,
        OneCycleParamScheduler,
        (_fetch_method, 'builtins.getattr'),
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        np.ndarray,
        np.dtype,
        *(type(np.dtype(t)) for t in (np.float64, np.float32, np.int64, np.uint32, np.bool_)),
    ]


def _fetch_method(owner: Any, name: str) -> Any:
    """All that pickle's ``getattr`` may fetch: the methods that mmengine keeps by name."""
    allowed = {
        HistoryBuffer: ('current', 'max', 'mean', 'min'),
        OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
    }
    if not isinstance(owner, type) or name not in allowed.get(owner, ()):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not executed')
    return getattr(owner, name)


def _strip_module(state: StateDict) -> dict[str, Tensor]:
    return {key.removeprefix('module.'): value for key, value in state.items()}


def _to_target_names(module: nn.Module, state: StateDict) -> dict[str, Tensor]:
    """Authors' names to those of a classifier or a segmentor; a bare backbone has them."""
    if not hasattr(module, 'backbone'):
        return dict(state)
    own = set(module.state_dict())
    renamed = {}
    for key, value in state.items():
        stem, _, rest = key.partition('.')
        candidates = {'fc_norm': f'neck.norm.{rest}', 'head': f'head.fc.{rest}'}
        target = candidates.get(stem, '')
        renamed[target if target in own else f'backbone.{key}'] = value
    return renamed


def check_fit(module: nn.Module, state: StateDict, source: str, strict: bool = True) -> None:
    """Check that a state dict is this model's, key by key and shape by shape.

    Args:
        module: the whole model.
        state: the weights.
        source: what to call them in the message.
        strict: raise on anything that does not fit; otherwise log it, and raise only if
            nothing fits.

    Raises:
        ValueError: with every missing, unexpected and misshapen key.
    """
    problems, matched, _ = _compare(module.state_dict(), state)
    if problems and (strict or not matched):
        raise ValueError(f'{source} is a checkpoint of another model.{problems}')
    if problems:
        print_log(f'{source} fits in part.{problems}', 'current', logging.WARNING)


def _load(module: nn.Module, state: dict[str, Tensor], source: str, strict: bool) -> None:
    is_model = hasattr(module, 'backbone')
    backbone: nn.Module = module.backbone if is_model else module  # type: ignore[assignment]
    prefix = 'backbone.' if is_model else ''
    # Official weights fill all of a classifier, but only the backbone of a segmentor.
    filled = prefix if is_model and not hasattr(module, 'head') else ''
    own = {k: v for k, v in module.state_dict().items() if k.startswith(filled)}
    optional = tuple(prefix + part for part in _OPTIONAL)
    state = {k: v for k, v in state.items() if k in own or not k.startswith(optional)}
    state = _fill_shared(module, state)
    problems, matched, is_misshapen = _compare(own, state)
    if is_misshapen or not matched or (strict and problems):
        nothing = '' if matched else ' Not one key matches.'
        raise ValueError(
            f'{source} does not fit {type(module).__name__} ({type(backbone).__name__} backbone).'
            f'{nothing}{problems}'
        )
    if problems:
        print_log(f'{source} was loaded in part.{problems}', 'current', logging.WARNING)
    module.load_state_dict({k: state[k] for k in matched}, strict=False)


def _fill_shared(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A weight that layers share may stand once in the source, or under each of its names."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    filled = dict(state)
    for aliases in names.values():
        given = [name for name in aliases if name in state]
        if any(not torch.equal(state[name], state[given[0]]) for name in given[1:]):
            raise ValueError(f'one weight of the target differs in the source: {", ".join(given)}')
        if given:
            filled.update((name, state[given[0]]) for name in aliases)
    return filled


def _compare(own: StateDict, given: StateDict) -> tuple[str, list[str], bool]:
    """What does not fit, as text; the keys in both; whether a shape differs."""
    matched = [k for k in given if k in own]
    misshapen = [
        f'{k} {tuple(given[k].shape)} instead of {tuple(own[k].shape)}'
        for k in matched
        if given[k].shape != own[k].shape
    ]
    groups = {
        'missing': [k for k in own if k not in given],
        'unexpected': [k for k in given if k not in own],
        'misshapen': misshapen,
    }
    text = ''.join(f'\n  {name}: {", ".join(keys)}' for name, keys in groups.items() if keys)
    return text, matched, bool(misshapen)


def _resize_pos_embed(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official position embeddings, which are square, to the grid of the target's backbone."""
    backbone: Any = getattr(module, 'backbone', module)
    own, given = getattr(backbone, 'pos_embed', None), state.get('pos_embed')
    if own is None or given is None or given.ndim != 3:
        return state
    num_prefix = own.shape[1] - backbone.patch_embed.num_patches
    side = math.isqrt(max(given.shape[1] - num_prefix, 0))
    grid = list(backbone.patch_embed.grid_size)
    if grid == [side, side]:
        return state
    if given.shape[2] != own.shape[2] or side < 1 or side**2 + num_prefix != given.shape[1]:
        return state  # no other grid of the same model: reported as misshapen
    print_log(f'position embedding resized from {side}×{side} to {grid[0]}×{grid[1]}', 'current')
    return {**state, 'pos_embed': resample_abs_pos_embed(given, grid, [side, side], num_prefix)}
