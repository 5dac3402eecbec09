"""Layer-wise learning-rate decay, for segmentors as mmpretrain has it for classifiers."""

from collections.abc import Callable
from typing import Any

from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from ...registry import OPTIM_WRAPPER_CONSTRUCTORS, register

__all__ = ['LayerDecayOptimWrapperConstructor']


@register(OPTIM_WRAPPER_CONSTRUCTORS, 'SegmentorOptimWrapperConstructor')
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """Layer-wise learning-rate decay for any model whose backbone has ``get_layer_depth``.

    mmpretrain's constructor asks the whole model for its depths, which a segmentor does not
    know; mmseg's constructor supports three backbones by name. Parameters that do not train are
    left out, so on a frozen backbone the optimizer holds only those of the heads. A parameter
    outside the backbone gets the full learning rate. Without a decay every model is allowed.

    It is also registered as ``SegmentorOptimWrapperConstructor``, its first name, because users'
    configs contain it.

    Args:
        optim_wrapper_cfg: as for mmengine's default constructor.
        paramwise_cfg: mmpretrain's: ``layer_decay_rate`` (1.0: no decay), ``bias_decay_mult``,
            ``norm_decay_mult``, ``flat_decay_mult``, ``custom_keys`` (``decay_mult``).

    Raises:
        ValueError: for other options in ``paramwise_cfg``, which mmpretrain would ignore; if no
            parameter trains; if there is a decay and the backbone has no depths.
    """

    OPTIONS = (
        *('layer_decay_rate', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult'),
        'custom_keys',
    )

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        given = dict(paramwise_cfg or {})
        unknown = [key for key in given if key not in self.OPTIONS]
        for name, options in (given.get('custom_keys') or {}).items():
            unknown += [f'custom_keys[{name!r}].{key}' for key in options if key != 'decay_mult']
        if unknown:
            raise ValueError(
                f'{type(self).__name__} knows no {", ".join(unknown)} in paramwise_cfg; it takes '
                f'{", ".join(self.OPTIONS)}, and of a custom key decay_mult'
            )
        # mmengine reads an empty paramwise_cfg as: take all parameters as they are.
        super().__init__(optim_wrapper_cfg, given or dict(layer_decay_rate=1.0))

    def add_params(self, params, module: nn.Module, prefix='', get_layer_depth=None, **kwargs):
        if get_layer_depth is None:
            get_layer_depth = self._depths_of(module)
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
        if not prefix and not params:
            raise ValueError(f'no parameter of this {type(module).__name__} trains')

    def _depths_of(self, model: nn.Module) -> Callable[[str], tuple[int, int]]:
        """Parameter name -> (depth, number of depths)."""
        backbone: Any = getattr(model, 'backbone', None)
        if hasattr(backbone, 'get_layer_depth'):
            return lambda name: backbone.get_layer_depth(name, 'backbone.')
        rate = self.paramwise_cfg.get('layer_decay_rate', 1.0)
        if rate != 1.0:
            raise ValueError(
                f'layer_decay_rate={rate} needs a backbone with get_layer_depth, got a '
                f'{type(model).__name__} with a {type(backbone).__name__} backbone'
            )
        return lambda name: (0, 1)
