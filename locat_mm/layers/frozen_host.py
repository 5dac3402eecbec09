"""Training of GAug alone: the host gets no gradient and stays in eval mode."""

import logging
from typing import Any

from torch import nn

from .mixins import GAugMixin

__all__ = ['freeze_host', 'train_gaug', 'unfreeze_host']

_logger = logging.getLogger(__name__)


class _StaysInEval:
    """Takes the place of a host's ``train``: the mode is always eval, and GAug always trains.

    It is an attribute of the host, so the host's class stays. It is copied and stored with it.

    Args:
        host: the model.
        trainable: names of the host's parameters that trained before.
    """

    def __init__(self, host: nn.Module, trainable: frozenset[str]) -> None:
        self.host, self.trainable = host, trainable

    def __call__(self, mode: bool = True) -> nn.Module:
        type(self.host).train(self.host, False)
        # A host that freezes its first stages does so here again, with all that is in them.
        for layer in self.host.modules():
            if isinstance(layer, GAugMixin):
                layer.gaug.requires_grad_(True)
        return self.host


def freeze_host(model: nn.Module) -> None:
    """Freeze a model, before it gets GAug.

    Raises:
        ValueError: if a part of it runs without gradients, so none would reach GAug.
    """
    without = [name for name, m in model.named_modules() if getattr(m, 'frozen', False) is True]
    if without:
        raise ValueError(
            f"train='gaug' freezes the host itself: build {without[0] or type(model).__name__} "
            'with frozen=False, because frozen=True runs it without gradients'
        )
    trainable = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    model.requires_grad_(False)
    vars(model)['train'] = _StaysInEval(model, trainable)


def train_gaug(model: nn.Module) -> None:
    """Set the mode of a frozen model with GAug, and log the number of parameters that train."""
    model.train()
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    name = type(model).__name__
    _logger.info(
        "train='gaug': %s of the %s parameters of %s train", f'{trained:,}', f'{total:,}', name
    )


def unfreeze_host(model: Any) -> None:
    """Undo :func:`freeze_host`, if it was done."""
    stays = vars(model).pop('train', None)
    if isinstance(stays, _StaysInEval):
        for name, parameter in model.named_parameters():
            if name in stays.trainable:
                parameter.requires_grad_(True)
