"""A config's model without a Runner: built, or built and loaded for evaluation."""

import copy

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from torch import nn

from ..checkpoint import check_fit, read_state_dict
from ..registry import MODELS

__all__ = ['build_model', 'load_model']


def build_model(cfg: Config) -> nn.Module:
    """Build the model of an mmpretrain or mmseg config, without loading any weights.

    Raises:
        ValueError: if the config has no model.
    """
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model: give a complete config, no part of one')
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.build(copy.deepcopy(cfg.model))  # mmseg changes the config it builds from


def load_model(cfg: Config, checkpoint: str | None, device: str | None = None) -> nn.Module:
    """Build the model of a config, load its weights and put it into eval mode.

    Args:
        cfg: an mmpretrain or mmseg config.
        checkpoint: anything that :func:`locat_mm.checkpoint.read_state_dict` reads; every key
            must fit. None keeps the random weights.
        device: where the model goes; by default the accelerator if there is one. On the CPU,
            SyncBN layers become BN layers, because SyncBN needs an accelerator.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if the config has no model, or the checkpoint does not fit the model.
    """
    model = build_model(cfg)
    if checkpoint is not None:
        model.load_state_dict(check_fit(model, read_state_dict(checkpoint), checkpoint).state)
    device = device or get_device()
    if device == 'cpu':
        model = revert_sync_batchnorm(model)
    return model.to(device).eval()
