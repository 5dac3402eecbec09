"""The demo's picture: what each model sees in a few scenes, and what GAug learned."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from mmcv import imread
from mmseg.apis import inference_model, init_model
from torch import nn

from locat_mm.checkpoint import read_state_dict
from locat_mm.layers import GaussianAugment

__all__ = ['draw']


def draw(models: dict[str, tuple[Path, Path]], scenes: Path, out: Path, count: int = 4) -> Path:
    """Draw validation scenes, their masks and every model's maps.

    Args:
        models: name -> (segmentation config, work directory of its training).
        scenes: the scenes part of digit_scenes.
        out: the picture to write.
        count: how many scenes, the first of the validation split.

    Returns:
        ``out``.
    """
    paths = sorted((scenes / 'images' / 'validation').glob('*.png'))[:count]
    images = [imread(path, channel_order='rgb') for path in paths]
    masks = [imread(scenes / 'annotations' / 'validation' / p.name, 'unchanged') for p in paths]
    maps, learned = {}, {}
    for name, (config, work_dir) in models.items():
        model = init_model(str(config), device='cpu')
        checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
        model.load_state_dict(read_state_dict(checkpoint))
        with GaugRecorder(model) as recorder:
            maps[name] = [
                inference_model(model, str(p)).pred_sem_seg.data[0].numpy() for p in paths
            ]
        learned[name] = recorder.means()
        meta = model.cfg.test_dataloader.dataset.metainfo
    palette, classes = np.array(meta['palette'], np.uint8), meta['classes']
    with_gaug = {name: means for name, means in learned.items() if means}

    columns = 2 + len(maps)
    figure = plt.figure(figsize=(2.3 * columns + 4.2, 2.3 * count + 0.7), layout='constrained')
    left, right = figure.subfigures(1, 2, width_ratios=(2.3 * columns, 4.2))
    grid = left.subplots(count, columns, squeeze=False)
    titles = ('image', 'ground truth', *maps)
    for i in range(count):
        shown = [images[i], palette[masks[i]], *(palette[maps[name][i]] for name in maps)]
        for axis, picture, title in zip(grid[i], shown, titles, strict=True):
            axis.imshow(picture, interpolation='nearest')
            axis.set_axis_off()
            if i == 0:
                axis.set_title(title)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour / 255) for colour in palette]
    left.legend(handles, classes, loc='outside lower center', ncols=len(classes), fontsize=8)
    _draw_gaug(right, with_gaug)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out


def _draw_gaug(figure, learned: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    top, bottom = figure.subplots(2, 1)
    for name, (variance, alpha) in learned.items():
        blocks = np.arange(len(alpha))
        for axis, label, shift in ((0, 'rows', -0.2), (1, 'columns', 0.2)):
            top.bar(blocks + shift, variance[:, axis], 0.4, label=f'{name}, {label}')
        bottom.bar(blocks, alpha, 0.6, label=name)
    top.set_title('what GAug learned: mean variance')
    top.set_ylabel('squared patches')
    bottom.set_title('mean strength α')
    bottom.set_ylabel('logits')
    for axis in (top, bottom):
        axis.set_xlabel('block')
        axis.margins(y=0.25)  # the legend's place
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=8)


class GaugRecorder:
    """Mean variance and strength per block over the forwards inside the context."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [m for m in model.modules() if isinstance(m, GaussianAugment)]
        self.seen: dict[GaussianAugment, list[torch.Tensor]] = {m: [] for m in self.layers}

    def __enter__(self) -> 'GaugRecorder':
        self.handles = [m.register_forward_hook(self._record) for m in self.layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _record(self, layer: nn.Module, _: object, output: tuple) -> None:
        variance, alpha = output
        both = torch.cat([variance, alpha[..., None]], dim=-1)  # [B, heads, H·W, 3]
        self.seen[layer].append(both.flatten(0, 2).mean(0))

    def means(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(variance ``[blocks, 2]``, alpha ``[blocks]``), or None without GAug."""
        if not self.layers:
            return None
        stacked = torch.stack([torch.stack(self.seen[m]).mean(0) for m in self.layers]).numpy()
        return stacked[:, :2], stacked[:, 2]
