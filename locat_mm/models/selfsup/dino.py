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

__all__ = ['DINO']

#: The first crops of an image, which the teacher sees too.
_NUM_GLOBAL = 2


@register(MODELS)
class DINO(BaseSelfSupervisor):
    """A student learns to say of any crop what its moving average, the teacher, says of another.

    The student sees all crops of an image, the teacher the first two. Crops of one size go
    through the backbone together, all through the head together. The teacher is in eval mode (so
    without stochastic depth) and is updated before it is asked, from the student of the step
    before; it starts as the student.

    In a checkpoint the student is ``backbone.``, ``neck.`` and ``head.``, and the teacher, which
    is what DINO evaluates, the same under ``teacher.module.``:
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='teacher.module.backbone.')``.

    Args:
        backbone: e.g. :class:`locat_mm.models.LocAtViT`; takes images of all sizes of crops.
        head: projection, :class:`DINOHead`.
        neck: between them, e.g. PRR; what comes out of it is ``[B, C]``.
        loss: of :class:`DINOLoss`; its ``out_channels`` are the head's.
        base_momentum: how much of the student enters the teacher at first; falls to 0 by a
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
        """Set the mode; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The teacher's features, after the neck: what DINO evaluates.

        Args:
            inputs: images ``[B, 3, H, W]``.

        Returns:
            one tensor ``[B, C]``, in a tuple.
        """
        with torch.no_grad():
            return (_read(self.teacher.module, inputs),)

    def loss(
        self, inputs: Sequence[Tensor], data_samples: Any = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """One step's loss; in training it also updates the teacher and the centre.

        Args:
            inputs: crops, each ``[B, 3, H, W]``, the two global ones first and crops of one size
                next to each other.
            data_samples: not used; there are no labels.

        Returns:
            of :class:`DINOLoss`, and ``spread``: the mean over channels of the standard
            deviation of the teacher's L2-normalised features over this process's batch, times
            √C. Features spread over all directions have 1, collapsed ones 0.

        Raises:
            TypeError: if ``inputs`` is no sequence of crops.
            ValueError: if there are fewer than two crops, or the features are not ``[B, C]``.
        """
        if not isinstance(inputs, (list, tuple)):
            raise TypeError(
                f'a list of crops expected, got {type(inputs).__name__}: the pipeline needs '
                'MultiView'
            )
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


class _Teacher(CosineEMA):
    """``CosineEMA`` that waits for its step, a tensor on the device, once and not per tensor."""

    def update_parameters(self, model: nn.Module) -> None:
        self._step = int(self.steps)
        super().update_parameters(model)

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: Any) -> None:
        super().avg_func(averaged_param, source_param, self._step)


def _project(network: Any, crops: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Crops ``[B, 3, H, W]`` to features ``[V·B, C]`` and logits ``[V, B, K]``."""
    sizes = itertools.groupby(crops, key=lambda crop: crop.shape[-2:])
    features = torch.cat([_read(network, torch.cat(list(same))) for _, same in sizes])
    return features, network['head'](features).unflatten(0, (len(crops), -1))


def _read(network: Any, images: Tensor) -> Tensor:
    outputs = network['backbone'](images)
    if 'neck' in network:
        outputs = network['neck'](outputs)
    if outputs[-1].ndim != 2:
        raise ValueError(
            f'features [B, C] expected, got {tuple(outputs[-1].shape)}: the backbone needs '
            "out_type='cls_token' or, with PRR as neck, the neck pool='cls_token'"
        )
    return outputs[-1]
