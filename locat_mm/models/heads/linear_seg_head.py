"""The one-layer decoder of the authors' segmentation recipe."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from ...registry import MODELS, register

__all__ = ['LinearSegHead']


@register(MODELS)
class LinearSegHead(BaseDecodeHead):
    """1×1 convolution, GroupNorm with one group, GELU, 1×1 convolution to the classes.

    No dropout. It reads one map and does not mix neighbouring patches. So its result depends on
    the information in each patch alone.

    Args:
        channels: channels between the two convolutions.
        kwargs: of mmseg's ``BaseDecodeHead`` (``in_channels``, ``num_classes``, ...).
    """

    def __init__(self, channels: int = 512, dropout_ratio: float = 0.0, **kwargs) -> None:
        super().__init__(channels=channels, dropout_ratio=dropout_ratio, **kwargs)
        self.hidden = ConvModule(
            self.in_channels,
            channels,
            kernel_size=1,
            bias=True,
            norm_cfg=dict(type='GN', num_groups=1),
            act_cfg=dict(type='GELU'),
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """
        Args:
            inputs: backbone maps; the one at ``in_index`` is ``[B, in_channels, H, W]``.

        Returns:
            logits ``[B, num_classes, H, W]``.
        """
        return self.cls_seg(self.hidden(self._transform_inputs(inputs)))
