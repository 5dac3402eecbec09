"""Load weights into a model; keys that do not fit are errors."""

import logging
from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from torch import Tensor, nn

from .adapting import adapt_channels
from .fitting import check_fit, fit, fit_as_is
from .names import strip_prefix
from .reading import StateDict
from .sources import read_state_dict

__all__ = ['init_from_pretrained', 'load_official', 'pretrained_of', 'watch_pretrained']


def load_official(
    module: nn.Module, source: str | Path | StateDict, strict: bool = True
) -> nn.Module:
    """Load weights of the authors' code or of timm into a model.

    Args:
        module: a bare backbone, an mmpretrain classifier (``backbone``, ``neck.norm`` from
            ``fc_norm``, ``head.fc`` from ``head``) or an mmseg segmentor (its backbone alone).
        source: a state dict or what :func:`locat_mm.checkpoint.read_state_dict` reads: a file,
            ``hf-hub:OWNER/NAME``, ``timm:NAME``. No pickle is executed. Position embeddings
            are resized when the grid differs, and Swin's bias tables when the window does;
            filters on the image are adapted when the number of channels differs.
        strict: raise on missing and unexpected keys instead of logging them. Keys of
            ``head``, ``norm``, ``fc_norm`` and ``norm_patches`` are allowed although the model
            lacks that part. The file may contain a weight that layers share once, or once per
            layer.

    Returns:
        ``module``.

    Raises:
        FileNotFoundError: if the file does not exist, or the hub cannot be reached.
        ValueError: if the source cannot be read safely; if a key is misshapen, its values are of
            another kind (integers for floats), NaN or infinite, or nothing matches; with
            ``strict`` if a key is missing or unexpected.
    """
    if isinstance(source, (str, Path)):
        state, name = read_state_dict(source), str(source)
    elif isinstance(source, Mapping):
        state, name = dict(source), 'the state dict'
    else:
        raise TypeError(f'source must be a path or a state dict, got {type(source).__name__}')
    fitted = fit(module, state, whole=False)
    if fitted.misshapen or fitted.unusable or not fitted.state or (strict and fitted.problems):
        raise fitted.error(name)
    if fitted.problems:
        print_log(f'{name} was loaded in part.{fitted.problems}', 'current', logging.WARNING)
    module.load_state_dict(fitted.state, strict=False)
    return module


def init_from_pretrained(backbone: nn.Module, init_cfg: dict | list | None) -> bool:
    """Load ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)``, strictly.

    The checkpoint may be any source of :func:`locat_mm.checkpoint.read_state_dict`. Without a
    prefix, the keys under ``backbone.`` of a whole model's checkpoint are used. Position embeddings
    and Swin's bias tables of another image size are resized, and filters on the image are adapted
    to another number of channels.

    Args:
        backbone: the bare backbone to load into.
        init_cfg: mmengine's; nothing happens if it has no ``Pretrained``.

    Returns:
        whether the weights were loaded.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_official`; also if ``init_cfg`` has other
            initialisers besides ``Pretrained``.
    """
    init = pretrained_of(init_cfg)
    if init is None:
        return False
    state = read_state_dict(init.checkpoint, init.map_location)
    if init.prefix:
        part = strip_prefix(state, init.prefix, init.checkpoint)
        # Under a prefix there is a backbone of OpenMMLab: its embeddings need not be square.
        state = {f'backbone.{key}': value for key, value in part.items()}
    fitted = check_fit(backbone, state, str(init.checkpoint), whole=False)
    backbone.load_state_dict(fitted.state, strict=False)  # only new GAug may be missing
    print_log(f'backbone weights loaded from {init.checkpoint}', logger='current')
    return True


def pretrained_of(init_cfg: dict | list | None) -> PretrainedInit | None:
    """The ``Pretrained`` of an ``init_cfg``, if it has one.

    Raises:
        TypeError: if ``Pretrained`` has an unknown argument.
        ValueError: if there are other initialisers besides it.
    """
    given = init_cfg if isinstance(init_cfg, list) else [init_cfg] if init_cfg else []
    found = [cfg for cfg in given if cfg.get('type') in ('Pretrained', PretrainedInit)]
    if not found:
        return None
    if len(given) > 1:
        raise ValueError(f'Pretrained fills the whole module, so give it alone: {init_cfg}')
    return PretrainedInit(**{key: value for key, value in found[0].items() if key != 'type'})


def watch_pretrained(model: nn.Module) -> None:
    """Make every ``Pretrained`` in a model log keys that do not fit, and fail if none fits.

    Filters on the image are adapted to the model's channels
    (:func:`locat_mm.checkpoint.adapting.adapt_channels`).

    This package's backbones are strict by themselves. For modules of other packages mmengine and
    mmseg load the keys that fit, in part without a message. Extra keys, such as the head of the
    file's classifier, are usual there: they are only logged.

    Args:
        model: with weights not yet initialised. Loading then raises a ValueError if no key
            fits, or values are of another kind (integers for floats), NaN or infinite.
    """
    for name, module in model.named_modules():
        init_cfg = getattr(module, 'init_cfg', None)
        given = init_cfg if isinstance(init_cfg, list) else [init_cfg] if init_cfg else []
        if any(cfg.get('type') in ('Pretrained', PretrainedInit) for cfg in given):
            module.register_load_state_dict_pre_hook(_CheckWhileLoading(name or 'the model', given))


class _CheckWhileLoading:
    """Compares the first state dict that a module loads; later ones are of whole models."""

    def __init__(self, name: str, init_cfg: list) -> None:
        self.source = ', '.join(str(cfg.get('checkpoint')) for cfg in init_cfg)
        self.source = f'{self.source} (init_cfg of {name})'
        self.is_done = False

    def __call__(
        self, module: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        if self.is_done or prefix:
            return
        self.is_done = True
        state.update(adapt_channels(module, state))  # the dict that mmengine goes on to load
        fitted = fit_as_is(module, state)
        if fitted.misses_backbone or fitted.unusable or not fitted.state:
            raise fitted.error(self.source)
        if fitted.problems:
            print_log(
                f'{self.source} was loaded in part.{fitted.problems}', 'current', logging.WARNING
            )
