"""DINO: self-distillation without labels (Caron et al., ICCV 2021, arXiv 2104.14294)."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.models.utils import CosineEMA
from torch import Tensor, nn

from ...registry import MODELS, register

__all__ = ['DINO', 'check_crops']

#: Number of global crops. They are the first crops of an image; the teacher sees only them.
_NUM_GLOBAL = 2


@register(MODELS)
class DINO(BaseSelfSupervisor):
    """A student network learns to predict the output of a teacher for another crop.

    The teacher is a moving average of the student. The student sees all crops of an image, the
    teacher the first two. Crops of one size pass through the backbone in one batch; all crops
    pass through the head in one batch. The teacher is in eval mode, so without stochastic depth.
    It starts as a copy of the student. Each step first updates it from the student and then runs
    it.

    In a checkpoint the student has the keys ``backbone.``, ``neck.`` and ``head.``. The teacher,
    which DINO evaluates, has the same keys under ``teacher.module.``:
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='teacher.module.backbone.')``.

    Args:
        backbone: e.g. :class:`locat_mm.models.LocAtViT`; must take images of all crop sizes.
        head: projection, :class:`DINOHead`.
        neck: between backbone and head, e.g. PRR; its output is ``[B, C]``.
        loss: arguments of :class:`DINOLoss` without ``out_channels``, which is the head's.
        base_momentum: first weight of the student in the teacher's update. It falls to 0 by a
            cosine over the training (mmpretrain's ``CosineEMA``). DINO's momentum is 1 − this.
        data_preprocessor: mmpretrain's ``SelfSupDataPreprocessor``.
        init_cfg: mmengine's.

    Raises:
        ValueError: if ``base_momentum`` is outside (0, 1).
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: dict | None = None,
        loss: dict | None = None,
        base_momentum: float = 0.004,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if not 0 < base_momentum < 1:
            raise ValueError(
                f'base_momentum must be within (0, 1), got {base_momentum}: it is what enters the '
                'teacher, 0.004 where DINO says 0.996'
            )
        self.loss_module = MODELS.build(
            {'type': 'locat_mm.DINOLoss', **(loss or {}), 'out_channels': self.head.out_channels}
        )
        self.teacher = _Teacher(self._student(), momentum=base_momentum)
        self.teacher.eval()

    def train(self, mode: bool = True) -> 'DINO':
        """Set the mode. The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The teacher's features after the neck, which DINO evaluates.

        Args:
            inputs: images ``[B, 3, H, W]``.

        Returns:
            one tensor ``[B, C]``, in a tuple.
        """
        with torch.no_grad():
            return (_extract(self.teacher.module, inputs),)

    def loss(
        self, inputs: Sequence[Tensor], data_samples: Any = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Loss of one step. In training it also updates the teacher and the centre.

        Args:
            inputs: crops, each ``[B, 3, H, W]``. The two global crops come first; crops of one
                size stand next to each other.
            data_samples: not used, because there are no labels.

        Returns:
            the results of :class:`DINOLoss`, and ``spread``: √C times the mean over channels of
            the standard deviation of the teacher's L2-normalised features over this process's
            batch. It is 1 for features in all directions and 0 for collapsed features.

        Raises:
            TypeError: if ``inputs`` is no sequence of crops.
            ValueError: if there are fewer than two crops, or the features are not ``[B, C]``.
        """
        check_crops(inputs)
        if len(inputs) < _NUM_GLOBAL:
            raise ValueError(f'{_NUM_GLOBAL} global crops needed, got {len(inputs)} crops')
        epoch = MessageHub.get_current_instance().get_info('epoch') or 0
        with torch.no_grad():
            if self.training:
                self.teacher.update_parameters(self._student())
            features, targets = _project(self.teacher.module, inputs[:_NUM_GLOBAL])
            unit = F.normalize(features.float(), dim=-1)
            spread = unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5
        logits = _project(self._student(), inputs)[1]
        return {**self.loss_module(logits, targets, epoch), 'spread': spread}

    def _student(self) -> nn.ModuleDict:
        parts = dict(backbone=self.backbone, neck=self.neck, head=self.head)
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def check_crops(inputs: Any) -> None:
    """Raise a TypeError if a model does not get a list of crops."""
    if not isinstance(inputs, (list, tuple)):
        raise TypeError(
            f'a list of crops expected, got {type(inputs).__name__}: the pipeline needs MultiView'
        )


class _Teacher(CosineEMA):
    """``CosineEMA`` that reads its step from the device once per update, not once per tensor."""

    def update_parameters(self, model: nn.Module) -> None:
        self._step = int(self.steps)
        super().update_parameters(model)

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: Any) -> None:
        super().avg_func(averaged_param, source_param, self._step)


def _project(network: Any, crops: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Features ``[V·B, C]`` and logits ``[V, B, K]`` of V crops ``[B, 3, H, W]``."""
    sizes = itertools.groupby(crops, key=lambda crop: crop.shape[-2:])
    features = torch.cat([_extract(network, torch.cat(list(same))) for _, same in sizes])
    return features, network['head'](features).unflatten(0, (len(crops), -1))


def _extract(network: Any, images: Tensor) -> Tensor:
    outputs = network['backbone'](images)
    if 'neck' in network:
        outputs = network['neck'](outputs)
    if outputs[-1].ndim != 2:
        raise ValueError(
            f'features [B, C] expected, got {tuple(outputs[-1].shape)}: the backbone needs '
            "out_type='cls_token' or, with PRR as neck, the neck pool='cls_token'"
        )
    return outputs[-1]
