"""DINO on patches: the region-level objective of EsViT (Li et al., ICLR 2022, arXiv 2106.09785)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from torch import Tensor

from ...registry import MODELS, register
from .dino import DINO, check_crops

__all__ = ['DenseDINO']


@register(MODELS)
class DenseDINO(DINO):
    """Each patch of the student learns the teacher's output for the same thing in another crop.

    There are two crops of an image. A student's patch is matched with the patch of the other crop
    whose teacher feature has the largest cosine with the student's feature (EsViT, equation 3).
    The objective is :class:`DINOLoss` over the matched pairs. There is no objective on the class
    token, so no neck. The centre of the loss is that of the matched patches.

    With a backbone of ``train='gaug'`` the host stays as it is, and GAug alone learns which
    distances serve the patches.

    Args:
        backbone: must return ``[B, C, H, W]``, e.g. ``out_type='featmap'``.
        head: projection of each patch, :class:`DINOHead`.
        neck: must be None; it is an argument because configs of DINO have it.
        **kwargs: ``loss``, ``base_momentum``, ``data_preprocessor`` and ``init_cfg`` of
            :class:`DINO`.

    Raises:
        ValueError: if there is a neck, or ``base_momentum`` is outside (0, 1).
    """

    def __init__(self, backbone: dict, head: dict, neck: dict | None = None, **kwargs: Any) -> None:
        if neck is not None:
            raise ValueError(f'DenseDINO has no objective on the class token, got neck={neck}')
        super().__init__(backbone, head, **kwargs)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The teacher's features, averaged over the patches.

        Args:
            inputs: images ``[B, 3, H, W]``.

        Returns:
            one tensor ``[B, C]``, in a tuple.
        """
        with torch.no_grad():
            return (_patches(self.teacher.module, inputs).mean(1),)

    def loss(
        self, inputs: Sequence[Tensor], data_samples: Any = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Loss of one step. In training it also updates the teacher and the centre.

        Args:
            inputs: two crops, each ``[B, 3, H, W]``.
            data_samples: not used, because there are no labels.

        Returns:
            the results of :class:`DINOLoss` over patches.

        Raises:
            TypeError: if ``inputs`` is no sequence of crops.
            ValueError: if there are not two crops of one size, or the features are not
                ``[B, C, H, W]``.
        """
        check_crops(inputs)
        sizes = [tuple(crop.shape[-2:]) for crop in inputs]
        if len(sizes) != 2 or sizes[0] != sizes[1]:
            raise ValueError(f'two crops of one size needed, got crops of {sizes} pixels')
        epoch = MessageHub.get_current_instance().get_info('epoch') or 0
        images = torch.cat(list(inputs))
        student = self._student()
        with torch.no_grad():
            if self.training:
                self.teacher.update_parameters(student)
            known, targets = _project(self.teacher.module, images)
        features, logits = _project(student, images)
        # For each patch of the student's crop v: the teacher's output for its match in the other.
        matched = [_match(features[v], known[1 - v], targets[1 - v]) for v in range(2)]
        # DINOLoss compares row v of the student with row 1 - v of the teacher.
        pairs = logits.flatten(1, 2), torch.stack(matched[::-1]).flatten(1, 2)  # [2, B·N, K]
        return self.loss_module(*pairs, epoch)


def _patches(network: Any, images: Tensor) -> Tensor:
    """Features of patches: ``[B, N, C]``."""
    features = network['backbone'](images)[-1]
    if features.ndim != 4:
        raise ValueError(
            f'features [B, C, H, W] expected, got {tuple(features.shape)}: the backbone needs '
            "out_type='featmap'"
        )
    return features.flatten(2).transpose(1, 2)


def _project(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features ``[2, B, N, C]`` and logits ``[2, B, N, K]`` of two crops ``[2·B, 3, H, W]``."""
    features = _patches(network, images)
    logits = network['head'](features.flatten(0, 1)).unflatten(0, features.shape[:2])
    return features.unflatten(0, (2, -1)), logits.unflatten(0, (2, -1))


@torch.no_grad()
def _match(features: Tensor, known: Tensor, targets: Tensor) -> Tensor:
    """The targets ``[B, N, K]`` of those patches of ``known`` most similar to ``features``."""
    cosines = F.normalize(features, dim=-1) @ F.normalize(known, dim=-1).transpose(1, 2)
    index = cosines.argmax(-1, keepdim=True)
    return targets.gather(1, index.expand(-1, -1, targets.shape[-1]))
