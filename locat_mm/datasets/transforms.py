"""A transform that finds wrong annotations and names their file."""

import numpy as np
from mmcv.transforms import BaseTransform

from ..registry import TRANSFORMS
from .file_damage import BadSampleError

__all__ = ['CheckAnnotations']


@TRANSFORMS.register_module()
class CheckAnnotations(BaseTransform):
    """Raise an error for a mask or label that does not fit its image or the classes.

    Without this check, a mask of a wrong size fails in collation, and a class out of range fails
    in the loss (on a GPU as a device-side assertion). Neither error names the file. Put the
    transform directly behind ``LoadAnnotations``, or behind ``LoadImageFromFile`` for
    classification.

    Reads ``gt_seg_map`` with ``ori_shape`` and ``seg_map_path``, or ``gt_label`` with
    ``img_path``. Samples without annotations, as in OpenMMLab's inference, pass unchanged.

    Args:
        num_classes: classes of the head; labels are 0..num_classes-1.
        ignore_index: mask value of unlabelled pixels.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict | None:
        """
        Raises:
            BadSampleError: a ValueError with the file's name, if the mask and the image differ in
                size or a class is out of range.
        """
        if 'gt_seg_map' in results:
            self._check_mask(results['gt_seg_map'], results)
        if 'gt_label' in results:
            labels = np.asarray(results['gt_label'])
            if labels.size and (labels.min() < 0 or labels.max() >= self.num_classes):
                raise BadSampleError(
                    f'{results.get("img_path", "a sample")}: label {labels.tolist()} is outside '
                    f'the {self.num_classes} classes',
                    'label out of range',
                )
        return results

    def _check_mask(self, mask: np.ndarray, results: dict) -> None:
        path, shape = results['seg_map_path'], results['ori_shape'][:2]
        if mask.ndim < 2 and mask.size == shape[0] * shape[1]:
            # LoadAnnotations removes an axis of length 1.
            mask = results['gt_seg_map'] = mask.reshape(shape)
        if mask.shape != tuple(shape):
            raise BadSampleError(
                f'{path}: the mask has shape {mask.shape}, its image '
                f'{results["img_path"]} {tuple(shape)}',
                'mask of another size',
            )
        labelled = mask[mask != self.ignore_index]
        if labelled.size and labelled.max() >= self.num_classes:
            raise BadSampleError(
                f'{path}: class {int(labelled.max())} is outside the {self.num_classes} classes',
                'class out of range',
            )

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes})'
