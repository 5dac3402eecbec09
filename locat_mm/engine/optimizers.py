"""Optimizer construction for segmentors, as mmpretrain has it for classifiers."""

from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

from ..registry import OPTIM_WRAPPER_CONSTRUCTORS, register

__all__ = ['SegmentorOptimWrapperConstructor']


@register(OPTIM_WRAPPER_CONSTRUCTORS)
class SegmentorOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """Layer-wise learning-rate decay for any model whose backbone has ``get_layer_depth``.

    mmpretrain's constructor asks the whole model for its depths, which a segmentor does not
    know; mmseg's knows the names of three backbones. Parameters that do not train are left out,
    so on a frozen backbone the optimizer holds the heads' alone. A parameter outside the
    backbone gets the full learning rate.

    Args:
        optim_wrapper_cfg: as mmengine's default constructor takes it.
        paramwise_cfg: mmpretrain's: ``layer_decay_rate`` (1.0: no decay), ``bias_decay_mult``,
            ``norm_decay_mult``, ``flat_decay_mult``, ``custom_keys`` (``decay_mult``).

    Raises:
        ValueError: if nothing trains, or the model's backbone knows no depths.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        # mmengine reads an empty paramwise_cfg as: take all parameters as they are.
        super().__init__(optim_wrapper_cfg, paramwise_cfg or dict(layer_decay_rate=1.0))

    def add_params(self, params, module: nn.Module, prefix='', get_layer_depth=None, **kwargs):
        if get_layer_depth is None:
            backbone = getattr(module, 'backbone', None)
            if backbone is None or not hasattr(backbone, 'get_layer_depth'):
                raise ValueError(
                    f'layer-wise decay needs a backbone with get_layer_depth, got a '
                    f'{type(module).__name__} with a {type(backbone).__name__} backbone'
                )

            def get_layer_depth(name: str) -> tuple[int, int]:
                return backbone.get_layer_depth(name, 'backbone.')

        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
        if not prefix and not params:
            raise ValueError(f'no parameter of this {type(module).__name__} trains')
