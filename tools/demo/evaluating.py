"""Evaluates a trained model of the demo on its validation split, also on changed images."""

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from locat_mm.config import load_config
from locat_mm.models.building import load_model

__all__ = ['CHANGES', 'CalibrationError', 'TrainedModel', 'blur', 'noise', 'occlude', 'resize']

#: Images that the model takes at a time.
_BATCH = 50
Change = Callable[[dict], dict]


def noise(deviation: float) -> Change:
    """Gaussian noise on every pixel and channel.

    Args:
        deviation: standard deviation, of 255.
    """

    def change(results: dict) -> dict:
        image = results['img']
        noisy = image + _generator(results).normal(0, deviation, image.shape)
        return dict(results, img=noisy.round().clip(0, 255).astype(np.uint8))

    return change


def blur(deviation: float) -> Change:
    """Convolution with a Gaussian.

    Args:
        deviation: standard deviation, in pixels.
    """
    return lambda results: dict(results, img=cv2.GaussianBlur(results['img'], (0, 0), deviation))


def occlude(share: float) -> Change:
    """A square with the mean colour of the image, at a random place.

    Args:
        share: of the shorter side, within 0 and 1.
    """

    def change(results: dict) -> dict:
        image, rng = results['img'], _generator(results)
        height, width = image.shape[:2]
        side = round(share * min(height, width))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        hidden = image.copy()
        hidden[top : top + side, left : left + side] = image.mean((0, 1)).round()
        return dict(results, img=hidden)

    return change


def resize(factor: float) -> dict:
    """The stock transform that makes images larger. mmseg compares at the size of the mask.

    Args:
        factor: of both sides.
    """
    return dict(type='Resize', scale_factor=factor, keep_ratio=True)


def _generator(results: dict) -> np.random.Generator:
    """Its seed is the file's name. So all models see the same image."""
    return np.random.default_rng(zlib.crc32(Path(results['img_path']).name.encode()))


#: name of a change of the images -> transforms behind the one that loads them
CHANGES: dict[str, Sequence[Change | dict]] = {
    'as they are': (),
    '1.5 times as large': (resize(1.5),),
    '2 times as large': (resize(2.0),),
    'noise': (noise(25.0),),
    'blur': (blur(1.5),),
    'occlusion': (occlude(0.4),),
}


class CalibrationError(BaseMetric):
    """Expected calibration error of a segmentor's pixels, percent: mean |accuracy - confidence|.

    The pixels are sorted into bins of equal width by the largest probability, and each bin counts
    by its pixels. Source: Guo et al., arXiv 1706.04599, equation 3.

    Args:
        bins: their number.
        ignore_index: the label of pixels that do not count.
    """

    default_prefix = 'pixels'

    def __init__(self, bins: int = 15, ignore_index: int = 255) -> None:
        super().__init__()
        self.edges = np.linspace(0, 1, bins + 1)[1:-1]
        self.ignore_index = ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            truth = sample['gt_sem_seg']['data'][0].cpu()
            probabilities = sample['seg_logits']['data'].cpu().softmax(0)  # [classes, H, W]
            confidence, predicted = probabilities.max(0)
            counted = truth != self.ignore_index
            confidence = confidence[counted].double().numpy()
            correct = (predicted == truth)[counted].double().numpy()
            places = np.searchsorted(self.edges, confidence)
            sums = [
                np.bincount(places, weights, minlength=len(self.edges) + 1)
                for weights in (np.ones_like(correct), correct, confidence)
            ]
            self.results.append(np.stack(sums))  # [3, bins]: pixels, correct ones, confidence

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        pixels, correct, confidence = sum(results)
        return {'ece': 100 * float(np.abs(correct - confidence).sum() / pixels.sum())}


class TrainedModel:
    """A classifier or segmentor of the demo, in eval mode, with its validation split.

    Args:
        config: its file.
        checkpoint: every key must fit.

    Attributes:
        cfg: the config.
        model: the model.

    Raises:
        FileNotFoundError: if there is no such config or checkpoint.
        ValueError: if the checkpoint does not fit the model.
    """

    def __init__(self, config: Path, checkpoint: str) -> None:
        self.cfg: Config = load_config(str(config))
        self.model: Any = load_model(self.cfg, checkpoint)

    def evaluate(
        self, changes: Sequence[Change | dict] = (), metrics: Sequence[BaseMetric] = ()
    ) -> dict[str, float]:
        """Test the model as its config says.

        Args:
            changes: transforms that come behind the one that loads the image.
            metrics: in addition to those of the config.
        """
        dataset = self.dataset(changes)
        evaluator = Evaluator([self.cfg.test_evaluator, *metrics])
        evaluator.dataset_meta = dataset.metainfo
        with torch.no_grad():
            for batch in _batches(dataset):
                evaluator.process(self.model.test_step(batch), batch)
        return evaluator.evaluate(len(dataset))

    def losses(self) -> Iterator[torch.Tensor]:
        """The mean loss of each batch of the validation split. The model stays in eval mode."""
        for batch in _batches(self.dataset()):
            data = self.model.data_preprocessor(batch, training=False)
            losses, _ = self.model.parse_losses(self.model(**data, mode='loss'))
            yield losses

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks of the backbone."""
        return list(self.model.backbone.blocks)

    def dataset(self, changes: Sequence[Change | dict] = ()) -> Any:
        """The validation split.

        Args:
            changes: transforms that come behind the one that loads the image.
        """
        init_default_scope(self.cfg.default_scope)  # the model before may be of another package
        settings = copy.deepcopy(self.cfg.test_dataloader.dataset)
        settings.pipeline = [settings.pipeline[0], *changes, *settings.pipeline[1:]]
        return DATASETS.build(settings)


def _batches(dataset: Any) -> Iterator[dict]:
    for start in range(0, len(dataset), _BATCH):
        stop = min(start + _BATCH, len(dataset))
        yield pseudo_collate([dataset[i] for i in range(start, stop)])
