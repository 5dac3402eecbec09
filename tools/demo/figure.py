"""The demo's picture: predictions of each model for some scenes, and what GAug learned."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from look_inside import mean_iou
from mmcv import imread
from mmseg.apis import inference_model, init_model

from locat_mm.analysis import record_gaug_statistics
from locat_mm.checkpoint import read_state_dict
from locat_mm.layers import GaussianAugment

__all__ = ['draw']


#: Colour of pixels without a label.
_NO_LABEL = (40, 40, 40)


def draw(
    models: dict[str, tuple[Path, Path]], scenes: Path, out: Path, paths: Sequence[Path]
) -> Path:
    """Draw validation scenes, their masks and each model's predicted maps with their mIoU.

    Args:
        models: name -> (segmentation config, work directory of its training).
        scenes: folder of images and masks.
        out: the picture to write.
        paths: the images to draw, of the validation split.

    Returns:
        ``out``.
    """
    images = [imread(path, channel_order='rgb') for path in paths]
    masks = [imread(scenes / 'annotations' / 'validation' / p.name, 'unchanged') for p in paths]
    maps, learned = {}, {}
    for name, (config, work_dir) in models.items():
        model = init_model(str(config), device='cpu')
        checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
        model.load_state_dict(read_state_dict(checkpoint))
        with record_gaug_statistics(model) as statistics:
            maps[name] = [
                inference_model(model, str(p)).pred_sem_seg.data[0].numpy() for p in paths
            ]
        # A constant Gaussian has statistics, too, but has not learned them.
        if any(isinstance(module, GaussianAugment) for module in model.modules()):
            means = [torch.stack(layer).mean(0) for layer in statistics.values()]
            learned[name] = torch.stack(means).numpy()  # [blocks, 3]
        meta = model.cfg.test_dataloader.dataset.metainfo
    classes = meta['classes']
    palette = np.full((256, 3), _NO_LABEL, np.uint8)
    palette[: len(classes)] = meta['palette']

    count, columns = len(paths), 2 + len(maps)
    figure = plt.figure(figsize=(2.3 * columns + 4.2, 2.3 * count + 0.7), layout='constrained')
    left, right = figure.subfigures(1, 2, width_ratios=(2.3 * columns, 4.2))
    grid = left.subplots(count, columns, squeeze=False)
    titles = ('image', 'ground truth', *maps)
    for i in range(count):
        shown = [images[i], palette[masks[i]], *(palette[maps[name][i]] for name in maps)]
        for axis, picture, title in zip(grid[i], shown, titles, strict=True):
            axis.imshow(picture, interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if i == 0:
                axis.set_title(title)
            if title in maps:
                score = mean_iou(torch.from_numpy(maps[title][i]), masks[i])
                axis.set_xlabel(f'mIoU {100 * score:.0f}', fontsize=8)
    handles = [
        plt.Rectangle((0, 0), 1, 1, facecolor=colour / 255, edgecolor='0.5', linewidth=0.5)
        for colour in palette[: len(classes)]
    ]
    left.legend(handles, classes, loc='outside lower center', ncols=len(classes), fontsize=8)
    _draw_gaug(right, learned)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


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
