"""The demo's picture: predictions of each model for some scenes, the attention of one patch, and
what GAug learned.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from look_inside import inspector_of, mean_iou
from mmcv import imread

from locat_mm.analysis import record_gaug_statistics
from locat_mm.analysis.inspection import Inspection
from locat_mm.layers import GaussianAugment

__all__ = ['draw']


#: Colour of pixels without a label.
_NO_LABEL = (40, 40, 40)
#: Patches up to this distance along both axes are near.
_NEAR = 2


def draw(
    models: dict[str, tuple[Path, Path]], scenes: Path, out: Path, paths: Sequence[Path]
) -> Path:
    """Draw validation scenes, their masks and each model's predicted maps with their mIoU.

    The last row has the attention of one patch of the first scene, which :func:`_middle` chooses:
    the mean over all blocks and heads.

    Args:
        models: name -> (segmentation config, work directory of its training).
        scenes: folder of images and masks.
        out: the picture to write.
        paths: the images to draw, of the validation split.

    Returns:
        ``out``.
    """
    masks = [imread(scenes / 'annotations' / 'validation' / p.name, 'unchanged') for p in paths]
    inspections, learned = {}, {}
    for name, model in models.items():
        inspector = inspector_of(model)
        with record_gaug_statistics(inspector.model) as statistics:
            inspections[name] = [inspector(path) for path in paths]
        # A constant Gaussian has statistics, too, but has not learned them.
        if any(isinstance(module, GaussianAugment) for module in inspector.model.modules()):
            means = [torch.stack(layer).mean(0) for layer in statistics.values()]
            learned[name] = torch.stack(means).numpy()  # [blocks, 3]
        meta = inspector.cfg.test_dataloader.dataset.metainfo
    classes = meta['classes']
    palette = np.full((256, 3), _NO_LABEL, np.uint8)
    palette[: len(classes)] = meta['palette']

    count, columns = len(paths) + 1, 2 + len(models)
    figure = plt.figure(figsize=(2.3 * columns + 4.2, 2.3 * count + 0.7), layout='constrained')
    left, right = figure.subfigures(1, 2, width_ratios=(2.3 * columns, 4.2))
    grid = left.subplots(count, columns, squeeze=False)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, title in zip(grid[0], ('image', 'ground truth', *models), strict=True):
        axis.set_title(title)
    for i, (axes, path, mask) in enumerate(zip(grid[:-1], paths, masks, strict=True)):
        axes[0].imshow(imread(path, channel_order='rgb'), interpolation='nearest')
        axes[1].imshow(palette[mask], interpolation='nearest')
        for axis, found in zip(axes[2:], inspections.values(), strict=True):
            axis.imshow(palette[found[i].segmentation], interpolation='nearest')
            score = mean_iou(torch.from_numpy(found[i].segmentation.astype(np.int64)), mask)
            axis.set_xlabel(f'mIoU {100 * score:.0f}', fontsize=8)
    _draw_attention(
        grid[-1], [found[0] for found in inspections.values()], palette[masks[0]], masks[0]
    )
    handles = [
        plt.Rectangle((0, 0), 1, 1, facecolor=colour / 255, edgecolor='0.5', linewidth=0.5)
        for colour in palette[: len(classes)]
    ]
    left.legend(handles, classes, loc='outside lower center', ncols=len(classes), fontsize=8)
    _draw_gaug(right, learned)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) that is deepest inside of the second largest class of a mask.

    The largest one is often the background.
    """
    labels, areas = np.unique(mask[mask != 255], return_counts=True)
    label = labels[np.argsort(areas)][-min(2, len(labels))]
    depth = cv2.distanceTransform((mask == label).astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def _draw_attention(axes, inspections: list[Inspection], truth, mask: np.ndarray) -> None:
    """A row of the figure: the image and its mask with one patch marked, and its attention."""
    x, y = _middle(mask)
    first = inspections[0]
    row, column = first.patch_at(first.layers[0], x, y)
    height, width = first.patch_pixels(first.grid_size)
    maps = []
    for found in inspections:
        of_layers = [layer.attention_of(row, column) for layer in found.layers]
        maps.append(torch.stack(of_layers).mean(0).numpy())
    for axis, picture in zip(axes[:2], (first.picture, truth), strict=True):
        axis.imshow(picture, interpolation='nearest')
        corner = column * width - 0.5, row * height - 0.5
        axis.add_patch(plt.Rectangle(corner, width, height, fill=False, edgecolor='red'))
    axes[0].set_xlabel('a patch, and its attention', fontsize=8)
    near = tuple(slice(max(0, i - _NEAR), i + _NEAR + 1) for i in (row, column))
    for axis, attention in zip(axes[2:], maps, strict=True):
        axis.imshow(attention, vmin=0, vmax=max(m.max() for m in maps))
        corner = column - 0.5, row - 0.5
        axis.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor='red'))
        share = attention[near].sum() / attention.sum()
        side = 2 * _NEAR + 1
        axis.set_xlabel(f'attention: {share:.0%} on {side}×{side} patches', fontsize=8)


def _draw_gaug(figure, learned: dict[str, np.ndarray]) -> None:
    top, bottom = figure.subplots(2, 1)
    for name, (rows, columns, alpha) in ((name, means.T) for name, means in learned.items()):
        blocks = np.arange(len(alpha))
        top.bar(blocks - 0.2, rows, 0.4, label=f'{name}, rows')
        top.bar(blocks + 0.2, columns, 0.4, label=f'{name}, columns')
        bottom.bar(blocks, alpha, 0.6, label=name)
    top.set_title('what GAug learned: mean variance')
    top.set_ylabel('squared patches')
    bottom.set_title('mean strength α')
    bottom.set_ylabel('logits')
    for axis in (top, bottom):
        axis.set_xlabel('block')
        axis.margins(y=0.25)  # room for the legend
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=8)
