"""Parameters of a model, and its multiply-accumulates for one image."""

from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import image_channels
from ..models.building import build_model

__all__ = ['METHOD', 'Complexity', 'Cost', 'input_size', 'measure_complexity']

#: How the numbers are counted. Tools print it beside them.
METHOD = (
    'Multiply-accumulates of convolutions, linear layers and matrix products, both products of '
    'every attention (GAug, PRR, windows) included. Elementwise work is not counted: softmax, '
    'norms, activations, resizing, the Gaussian itself.'
)


@dataclass(frozen=True)
class Cost:
    """Parameters, trainable parameters, and multiply-accumulates of one image."""

    parameters: int
    trainable: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """The cost of a model.

    Args:
        image_size: pixels (rows, columns).
        parts: ``'backbone'`` and ``'neck'`` if the model has them, and ``'head'``: all other
            parts. Auxiliary heads count there; they have parameters but do not run in a test.
        total: of the whole model.
    """

    image_size: tuple[int, int]
    parts: dict[str, Cost]
    total: Cost


def measure_complexity(cfg: Config, image_size: tuple[int, int] | None = None) -> Complexity:
    """Count parameters, and the operations from one image to its logits. See :data:`METHOD`.

    The model runs on torch's meta device. It computes no numbers there, and runs attention as two
    matrix products, which torch's counter counts.

    Args:
        cfg: an mmpretrain or mmseg config.
        image_size: pixels (rows, columns); by default :func:`input_size`.

    Raises:
        ValueError: if the config has no model, or if it has no input size and none is given.
    """
    # Built on the CPU, because the constructors of many backbones read values of tensors.
    model = build_model(cfg).to('meta').eval()
    rows, columns = image_size or input_size(cfg)
    parameters, trainable = _count_parameters(model)
    # The counter's hooks fail for trainable parameters among the inputs of a module.
    model.requires_grad_(False)
    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, image_channels(cfg.model), rows, columns), mode='tensor')
    counts = counter.get_flop_counts()
    total = Cost(sum(parameters.values()), sum(trainable.values()), counter.get_total_flops() // 2)
    macs: dict[str, int] = {
        name: sum(counts.get(f'{type(model).__name__}.{name}', {}).values()) // 2
        for name in ('backbone', 'neck')
        if name in parameters
    }
    # mmseg calls a head's forward without hooks. So the head's count is the rest.
    macs['head'] = total.macs - sum(macs.values())
    parts = {name: Cost(parameters[name], trainable[name], macs[name]) for name in macs}
    return Complexity((rows, columns), parts, total)


def input_size(cfg: Config) -> tuple[int, int]:
    """The input size in a config: a segmentor's crop, or a classifier's test image.

    Returns:
        pixels (rows, columns).

    Raises:
        ValueError: if the config has none.
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
    """All and trainable parameters by part. A shared parameter counts once."""
    parts = [name for name in ('backbone', 'neck') if getattr(model, name, None) is not None]
    parameters = dict.fromkeys([*parts, 'head'], 0)
    trainable = dict(parameters)
    for name, parameter in model.named_parameters():
        part = name.partition('.')[0]
        part = part if part in parts else 'head'
        parameters[part] += parameter.numel()
        trainable[part] += parameter.numel() * parameter.requires_grad
    return parameters, trainable
