"""Random weights of the demo's models, for tools that take a config and a checkpoint."""

from pathlib import Path

import torch

from locat_mm.registry import MODELS

from . import ROOT
from .shipped import load

__all__ = ['config', 'weights']


def config(name: str) -> str:
    """The path of a demo config."""
    return str(ROOT / 'configs' / 'demo' / f'{name}.py')


def weights(name: str, folder: Path) -> str:
    """A checkpoint of a demo config's model, random, with Gaussians that differ."""
    out = folder / f'{name.replace("/", "_")}.pth'
    if not out.exists():
        cfg = load(f'demo/{name}.py')
        cfg.model.backbone.init_cfg = cfg.model.init_cfg = None
        model = MODELS.build(cfg.model)
        for key, parameter in model.named_parameters():
            if '.gaug.' in key:
                parameter.data.add_(0.3 * torch.randn_like(parameter))
        torch.save(dict(state_dict=model.state_dict()), out)
    return str(out)
