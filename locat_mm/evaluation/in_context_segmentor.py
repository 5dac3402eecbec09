"""In-context segmentation: each patch gets the labels of its nearest patches; no training.

Balažević et al., "Towards In-Context Scene Understanding" (2023), called Hummingbird.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmseg.models.segmentors import BaseSegmentor
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..registry import MODELS, register
from .bank import check_storage, gather_rows
from .features import patch_map
from .nearest import nearest_neighbours, unit_rows

__all__ = ['InContextSegmentor', 'count_labels']


def count_labels(
    masks: Tensor, grid_size: tuple[int, int], num_classes: int, ignore_index: int = 255
) -> Tensor:
    """Number of pixels of each class in each patch, without unlabelled pixels.

    Args:
        masks: classes ``[B, H, W]``.
        grid_size: patches along (rows, columns).
        num_classes: number of classes; labels are 0..num_classes-1.
        ignore_index: mask value of unlabelled pixels.

    Returns:
        ``[B · rows · columns, num_classes]``, int16, patches row by row.

    Raises:
        ValueError: if the grid does not divide the masks, a patch has too many pixels for int16, or
            a label is no class.
    """
    rows, columns = grid_size
    height, width = masks.shape[1:]
    if height % rows or width % columns:
        raise ValueError(
            f'masks of {height}×{width} pixels do not split into {rows}×{columns} patches: let the '
            'pipeline resize images and masks to a multiple of the patch'
        )
    masks = masks.long()
    patches = masks.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))  # [B, r, h, c, w]
    patches = patches.transpose(2, 3).flatten(3).flatten(0, 2)  # [P, h·w]
    if patches.shape[1] > torch.iinfo(torch.int16).max:
        raise ValueError(f'patches of {patches.shape[1]} pixels are too large')
    ignored = patches == ignore_index
    wrong = patches[~ignored & ((patches < 0) | (patches >= num_classes))]
    if len(wrong):
        raise ValueError(f'class {int(wrong[0])} is outside the {num_classes} classes')
    patches = patches.masked_fill(ignored, num_classes)
    counts = torch.zeros(len(patches), num_classes + 1, dtype=torch.int16, device=masks.device)
    counts.scatter_add_(1, patches, torch.ones_like(patches, dtype=torch.int16))
    return counts[:, :num_classes]


@register(MODELS)
class InContextSegmentor(BaseSegmentor):
    """Segments an image by the nearest patches in a bank of labelled patches, without training.

    The label of a patch in the bank is the share of each class in its labelled pixels. A patch of
    an image gets the mean label of its nearest patches by cosine similarity, with the weights
    softmax(similarity / temperature). This map of shares is resized (bilinear) to the image, then
    to the ground truth. The prediction is the class with the largest share. mmseg's ``IoUMetric``,
    visualisers and test tools work with it. :class:`InContextTestLoop` fills the bank. In Python,
    call :meth:`start_bank`, :meth:`memorize` for every batch, and :meth:`finish_bank`.

    Each device holds the whole bank: (4 D + 2 · num_classes) bytes per patch (2 D with
    ``dtype='float16'``), and up to twice that during gathering. ADE20K at 224² with patches of 16
    has 3.96 M patches: 7.3 GB at D = 384. A checkpoint does not contain the bank. A class that is
    not in the bank is never predicted. Its IoU is 0 if the ground truth has it, and otherwise nan,
    which mmseg's mIoU ignores.

    Args:
        backbone: config of a backbone whose last output is a map ``[B, D, H, W]``; freeze it.
        num_classes: number of classes, at least 2.
        num_neighbours: number of nearest patches of the bank.
        temperature: of the softmax over their similarities.
        max_patches: largest number of patches in the bank. Every image gives the same number,
            drawn at random from its patches with a labelled pixel. None: all patches.
        seed: of this drawing. The result does not depend on the number of processes.
        ignore_index: mask value of unlabelled pixels.
        dtype: ``'float32'`` or ``'float16'``, type of the stored features.
        data_preprocessor, init_cfg: mmseg's.

    Raises:
        ValueError: if a number is out of range.
    """

    align_corners = False

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        num_neighbours: int = 30,
        temperature: float = 0.02,
        max_patches: int | None = None,
        seed: int = 0,
        ignore_index: int = 255,
        dtype: str = 'float32',
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if num_classes < 2 or num_neighbours < 1 or not temperature > 0:
            raise ValueError(
                'at least two classes, one neighbour and a positive temperature are needed, got '
                f'{num_classes=}, {num_neighbours=}, {temperature=}'
            )
        self.backbone = MODELS.build(backbone)
        self.num_classes, self.num_neighbours = num_classes, num_neighbours
        self.temperature, self.max_patches, self.seed = temperature, max_patches, seed
        self.ignore_index = ignore_index
        self.storage = check_storage(dtype)
        self.out_channels = num_classes
        self.forget()

    def forget(self) -> None:
        """Empty the bank."""
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._bank: tuple[Tensor, Tensor] | None = None  # [N, D], [N, classes]
        self._quota: int | None = None

    def start_bank(self, num_images: int) -> None:
        """Begin a new bank.

        Args:
            num_images: images of the bank, of all processes together.

        Raises:
            ValueError: if ``max_patches`` leaves no patch for an image.
        """
        self.forget()
        if self.max_patches is not None:
            self._quota = self.max_patches // num_images
            if self._quota < 1:
                raise ValueError(
                    f'max_patches={self.max_patches} gives none to each of {num_images} images'
                )

    @torch.no_grad()
    def memorize(self, inputs: Tensor, masks: Tensor, indices: Sequence[int]) -> None:
        """Store the patches of images, except patches without a labelled pixel.

        Args:
            inputs: preprocessed images ``[B, 3, H, W]``.
            masks: their classes ``[B, H, W]``.
            indices: of the images in their data set; a part of the seed for the drawing of patches.

        Raises:
            ValueError: if images and masks differ in size, the backbone returns no map or pads
                the images, or as :func:`count_labels`.
        """
        if inputs.shape[-2:] != masks.shape[-2:]:
            raise ValueError(
                f'the bank has images of {list(inputs.shape[-2:])} pixels and masks of '
                f'{list(masks.shape[-2:])}: in its pipeline LoadAnnotations stands before Resize'
            )
        features = self._features(inputs)  # [B, D, h, w]
        grid_size = (features.shape[2], features.shape[3])
        counts = count_labels(masks, grid_size, self.num_classes, self.ignore_index)
        rows = unit_rows(features.permute(0, 2, 3, 1).flatten(0, 2))  # [B·h·w, D]
        kept = self._choose(counts.any(dim=1).view(len(inputs), -1), indices)
        self._parts.append((rows[kept].to(self.storage), counts[kept]))

    def finish_bank(self) -> None:
        """Gather the patches of all processes.

        Raises:
            ValueError: if fewer patches than ``num_neighbours`` have a label.
        """
        features, counts = (
            gather_rows(torch.cat(parts)) for parts in zip(*self._parts, strict=True)
        )
        self._parts.clear()
        if len(features) < self.num_neighbours:
            raise ValueError(
                f'num_neighbours={self.num_neighbours} is more than the {len(features)} patches of '
                'the bank that have a labelled pixel'
            )
        self._bank = features, counts
        absent = [label for label, seen in enumerate(counts.any(dim=0).tolist()) if not seen]
        size = features.nbytes + counts.nbytes
        print_log(
            f'bank of {len(features)} patches, {features.shape[1]} features, {size / 1e6:.1f} MB'
            + (f'; it has no pixel of the classes {absent}' if absent else ''),
            'current',
        )

    def extract_feat(self, inputs: Tensor) -> Any:
        """The backbone's outputs."""
        return self.backbone(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Shares of the classes at the images' size, ``[B, classes, H, W]``."""
        return resize(self._forward(inputs), inputs.shape[2:], mode='bilinear', align_corners=False)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Segment images.

        Args:
            inputs: preprocessed images ``[B, 3, H, W]``.
            data_samples: mmseg's; ``ori_shape`` is the size of the prediction.

        Returns:
            the samples with ``pred_sem_seg`` and with the shares of the classes as ``seg_logits``.

        Raises:
            ValueError: if the bank is empty, or the backbone pads the images.
        """
        metas = [sample.metainfo for sample in data_samples or ()]
        return self.postprocess_result(self.encode_decode(inputs, metas), data_samples)

    @torch.no_grad()
    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        """Shares of the classes in every patch, ``[B, classes, h, w]``."""
        if self._bank is None:
            raise ValueError(
                'the bank is empty: test with test_cfg=dict(type="locat_mm.InContextTestLoop", '
                'bank_dataloader=...), or fill it by start_bank, memorize and finish_bank'
            )
        features = self._features(inputs)
        bank, counts = self._bank
        rows = unit_rows(features.permute(0, 2, 3, 1).flatten(0, 2))
        similarities, indices = nearest_neighbours(rows, bank, self.num_neighbours)
        weights = (similarities / self.temperature).softmax(dim=1)  # [B·h·w, k]
        labels = counts[indices].float()  # [B·h·w, k, classes]
        labels = labels / labels.sum(dim=2, keepdim=True)
        shares = (weights[:, None] @ labels).squeeze(1)
        return shares.view(len(inputs), *features.shape[2:], -1).permute(0, 3, 1, 2)

    def loss(self, inputs: Tensor, data_samples: list) -> dict:
        """
        Raises:
            RuntimeError: always.
        """
        raise RuntimeError('InContextSegmentor has nothing to train: test it')

    def _features(self, inputs: Tensor) -> Tensor:
        features = patch_map(self.backbone, self.extract_feat(inputs))
        # If the backbone pads, the map covers more than the image.
        stride = next((m.stride for m in self.backbone.modules() if isinstance(m, nn.Conv2d)), ())
        for pixels, cells, step in zip(inputs.shape[2:], features.shape[2:], stride, strict=False):
            if pixels % (cells * step) or (pixels // (cells * step)).bit_count() != 1:
                raise ValueError(
                    f'a map of {list(features.shape[2:])} does not tile an image of '
                    f'{list(inputs.shape[2:])} pixels: resize to a multiple of the patch or, in '
                    'testing, set data_preprocessor.test_cfg.size_divisor to the patch'
                )
        return features

    def _choose(self, labelled: Tensor, indices: Sequence[int]) -> Tensor:
        """The patches of a batch to keep: a mask ``[B · patches]`` from ``[B, patches]``."""
        if self._quota is None:
            return labelled.flatten()
        kept = torch.zeros_like(labelled)
        for row, index in enumerate(indices):
            candidates = labelled[row].nonzero().flatten().cpu().numpy()
            drawing = np.random.default_rng((self.seed, index))
            count = min(self._quota, len(candidates))
            kept[row, drawing.choice(candidates, count, replace=False)] = True
        return kept.flatten()
