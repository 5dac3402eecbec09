"""What a model costs: parameters, and multiply-accumulates of one image."""

from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.building import build_model

__all__ = ['METHOD', 'Complexity', 'Cost', 'input_size', 'measure_complexity']

#: What the numbers mean; tools print it beside them.
METHOD = (
    'Multiply-accumulates of convolutions, linear layers and matrix products, both products of '
    'every attention (GAug, PRR, windows) included. Elementwise work is not counted: softmax, '
    'norms, activations, resizing, the Gaussian itself.'
)


@dataclass(frozen=True)
class Cost:
    """Parameters, those that training changes, and multiply-accumulates of one image."""

    parameters: int
    trainable: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """The cost of a model.

    Args:
        image_size: pixels (rows, columns).
        parts: ``'backbone'`` and ``'neck'`` where the model has them, and ``'head'``: all the
            rest, auxiliary heads included, which hold parameters but do not run in a test.
        total: of the whole model.
    """

    image_size: tuple[int, int]
    parts: dict[str, Cost]
    total: Cost


def measure_complexity(cfg: Config, image_size: tuple[int, int] | None = None) -> Complexity:
    """Count what one image costs on the way to its logits: backbone, neck and head.

    The model runs on torch's meta device, where no number is computed and attention falls
    apart into the two products that torch's counter knows. See :data:`METHOD`.

    Args:
        cfg: an mmpretrain or mmseg config.
        image_size: pixels (rows, columns); by default :func:`input_size`.

    Raises:
        ValueError: if the config has no model, or states no input size and none is given.
    """
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model: give a complete config, no part of one')
    rows, columns = image_size or input_size(cfg)
    channels = cfg.model.get('backbone', {}).get('in_channels', 3)
    # Built on the CPU: many a stock backbone reads numbers off a tensor while it is built.
    model = build_model(cfg).to('meta').eval()
    parameters, trainable = _count_parameters(model)
    # The counter's hooks stumble over parameters among a module's inputs.
    model.requires_grad_(False)
    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, channels, rows, columns), mode='tensor')
    counts = counter.get_flop_counts()
    total = Cost(sum(parameters.values()), sum(trainable.values()), counter.get_total_flops() // 2)
    macs: dict[str, int] = {
        name: sum(counts.get(f'{type(model).__name__}.{name}', {}).values()) // 2
        for name in ('backbone', 'neck')
        if name in parameters
    }
    # mmseg calls a head's forward past the hooks, so its share is what is left.
    macs['head'] = total.macs - sum(macs.values())
    parts = {name: Cost(parameters[name], trainable[name], macs[name]) for name in macs}
    return Complexity((rows, columns), parts, total)


def input_size(cfg: Config) -> tuple[int, int]:
    """The size that a config feeds its model: a segmentor's crop, a classifier's test image.

    Returns:
        pixels (rows, columns).

    Raises:
        ValueError: if the config states none.
    """
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    # Transforms give (width, height).
    crops = [step.get('crop_size') for step in dataset.get('pipeline') or ()]
    crops = [crop[::-1] if isinstance(crop, (list, tuple)) else crop for crop in crops]
    candidates = (
        preprocessor.get('size'),
        cfg.get('crop_size'),
        *reversed(crops),
        (cfg.model.get('backbone') or {}).get('img_size'),
    )
    for size in candidates:
        if size:
            return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    raise ValueError(f'{cfg.filename} states no input size: give one (--shape)')


def _count_parameters(model: nn.Module) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters and trainable ones by part; what layers share counts once."""
    parts = [name for name in ('backbone', 'neck') if getattr(model, name, None) is not None]
    parameters = dict.fromkeys([*parts, 'head'], 0)
    trainable = dict(parameters)
    for name, parameter in model.named_parameters():
        part = name.partition('.')[0]
        part = part if part in parts else 'head'
        parameters[part] += parameter.numel()
        trainable[part] += parameter.numel() * parameter.requires_grad
    return parameters, trainable
