"""In-context segmentation: the labels of the nearest patches, with no decoder to train.

Balažević et al., "Towards In-Context Scene Understanding" (2023), called Hummingbird.
"""

from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.runner import TestLoop
from mmengine.runner.amp import autocast
from mmseg.models.segmentors import BaseSegmentor
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..helpers import innermost
from ..registry import LOOPS, MODELS, register
from .bank import build_bank_loader, check_storage, gather_rows, places, walk
from .features import patch_map
from .nearest import nearest_neighbours, unit_rows

__all__ = ['InContextSegmentor', 'InContextTestLoop', 'count_labels']


def count_labels(
    masks: Tensor, grid_size: tuple[int, int], num_classes: int, ignore_index: int = 255
) -> Tensor:
    """Pixels of each class in each patch; those without a label do not count.

    Args:
        masks: classes ``[B, H, W]``.
        grid_size: rows and columns of patches.
        num_classes: classes; labels are 0..num_classes-1.
        ignore_index: stands for no label.

    Returns:
        ``[B · rows · columns, num_classes]``, int16, patches row by row.

    Raises:
        ValueError: if the patches do not divide the masks, are larger than int16 can count, or a
            label is no class.
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
    """Segments by looking patches up in a bank of labelled ones; nothing is trained.

    A patch gets the labels of its nearest patches in the bank by cosine similarity, weighted by
    softmax(similarity / temperature); a patch of the bank has as label the share of each class in
    its labelled pixels. The map of shares is resized (bilinear) to the image, then to the ground
    truth, and the largest share is predicted: stock ``IoUMetric``, visualisers and test tools go
    with it. :class:`InContextTestLoop` fills the bank; in Python, :meth:`start_bank`,
    :meth:`memorize` for every batch, and :meth:`finish_bank` do.

    The bank takes (4 D + 2 · num_classes) bytes per patch (2 D with ``dtype='float16'``), up to
    twice that while it is gathered, on every device, and is no part of a checkpoint. All of
    ADE20K at 224² with patches of 16 is 3.96 M patches: 7.3 GB at D = 384. A class that the
    bank lacks is never predicted: its IoU is 0 where the ground truth has it, and otherwise nan,
    which mmseg's mIoU leaves out.

    Args:
        backbone: config of a backbone whose last output is a map ``[B, D, H, W]``; freeze it.
        num_classes: classes, at least 2.
        num_neighbours: patches of the bank that a patch looks up.
        temperature: of the softmax over their similarities.
        max_patches: keep at most that many patches in all; every image gives the same number, drawn
            at random of those with a labelled pixel. None: all.
        seed: of that drawing; the same patches are kept on any number of processes.
        ignore_index: mask value that stands for no label.
        dtype: ``'float32'`` or ``'float16'``, how the bank's features are kept.
        data_preprocessor, init_cfg: mmseg's.

    Raises:
        ValueError: if a number is out of its range.
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
            num_images: that will be memorized, on all processes together.

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
    def memorize(self, inputs: Tensor, masks: Tensor, indices: list[int]) -> None:
        """Store the patches of images; those without a labelled pixel are left out.

        Args:
            inputs: preprocessed images ``[B, 3, H, W]``.
            masks: their classes ``[B, H, W]``.
            indices: of the images in their data set; they seed the drawing of patches.

        Raises:
            ValueError: if images and masks differ in size, the backbone gives no map or pads the
                images, or as :func:`count_labels`.
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
        """Share what was memorized among all processes.

        Raises:
            ValueError: if no patch has a label, or fewer have than neighbours are asked for.
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
        """What the backbone returns."""
        return self.backbone(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Shares of the classes at the images' size, ``[B, classes, H, W]``."""
        return resize(self._forward(inputs), inputs.shape[2:], mode='bilinear', align_corners=False)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Segment images.

        Args:
            inputs: preprocessed images ``[B, 3, H, W]``.
            data_samples: mmseg's; their ``ori_shape`` is the size of the prediction.

        Returns:
            the samples, with ``pred_sem_seg`` and, as ``seg_logits``, the shares of the classes.

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
        # Backbones pad on the right and at the bottom: the map would cover more than the image.
        stride = next((m.stride for m in self.backbone.modules() if isinstance(m, nn.Conv2d)), ())
        for pixels, cells, step in zip(inputs.shape[2:], features.shape[2:], stride, strict=False):
            if pixels % (cells * step) or (pixels // (cells * step)).bit_count() != 1:
                raise ValueError(
                    f'a map of {list(features.shape[2:])} does not tile an image of '
                    f'{list(inputs.shape[2:])} pixels: resize to a multiple of the patch or, in '
                    'testing, set data_preprocessor.test_cfg.size_divisor to the patch'
                )
        return features

    def _choose(self, labelled: Tensor, indices: list[int]) -> Tensor:
        """Which patches of a batch to keep: mask ``[B · patches]`` from ``[B, patches]``."""
        if self._quota is None:
            return labelled.flatten()
        kept = torch.zeros_like(labelled)
        for row, index in enumerate(indices):
            candidates = labelled[row].nonzero().flatten().cpu().numpy()
            drawing = np.random.default_rng((self.seed, index))
            count = min(self._quota, len(candidates))
            kept[row, drawing.choice(candidates, count, replace=False)] = True
        return kept.flatten()


@register(LOOPS)
class InContextTestLoop(TestLoop):
    """mmengine's ``TestLoop`` that fills the bank of an :class:`InContextSegmentor` first.

    Every process memorizes its part of the bank's images and gets the others' parts.

    Args:
        runner, dataloader, evaluator, fp16: mmengine's.
        bank_dataloader: config of the bank: every image once and in order
            (``sampler=dict(type='DefaultSampler', shuffle=False)``), images and masks resized
            alike, so ``LoadAnnotations`` stands before ``Resize``.

    Raises:
        ValueError: if the bank's loader repeats or shuffles images.
        TypeError: if the model is no :class:`InContextSegmentor`.
    """

    def __init__(
        self, runner, dataloader, evaluator, bank_dataloader: dict, fp16: bool = False
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.bank_loader = build_bank_loader(runner, bank_dataloader)
        model = innermost(runner.model)
        if not isinstance(model, InContextSegmentor):
            raise TypeError(
                f'InContextTestLoop tests an InContextSegmentor, got a {type(model).__name__}'
            )
        self.model = model

    def run(self) -> dict:
        """Fill the bank, test, and empty it; return the metrics."""
        try:
            return super().run()
        finally:
            self.model.forget()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Segment one batch; before the first, fill the bank."""
        if idx == 0:
            self._fill()
        super().run_iter(idx, data_batch)

    def _fill(self) -> None:
        size = len(self.bank_loader.dataset)  # type: ignore[arg-type]
        self.model.start_bank(size)
        for batch, first in walk(self.bank_loader, 'in-context bank'):
            data: Any = self.model.data_preprocessor(batch, False)
            masks = [sample.get('gt_sem_seg') for sample in data['data_samples']]
            if any(mask is None for mask in masks):
                raise ValueError('the pipeline of bank_dataloader needs LoadAnnotations')
            shapes = {tuple(mask.data.shape) for mask in masks}
            if len(shapes) > 1:
                raise ValueError(f'masks of a batch of the bank differ in size: {sorted(shapes)}')
            indices, count = places(first, len(masks), size)
            images = data['inputs']
            stacked = torch.cat([mask.data for mask in masks]).to(images.device)
            stacked[count:] = self.model.ignore_index  # repetitions
            with autocast(enabled=self.fp16):
                self.model.memorize(images, stacked, indices)
        self.model.finish_bank()
