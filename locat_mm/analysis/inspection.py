"""Records what the model of a config and a checkpoint computes for an image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv import imread
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..config import load_config
from ..datasets import leaves
from ..layers.attach import find_patch_embed
from ..models.building import load_model
from .recording import LayerRecord, Recorder
from .structure import find_backbone

__all__ = ['Inspection', 'Inspector']

#: Number of layers to draw if none are named.
_NUM_LAYERS = 6


@dataclass
class Inspection:
    """The record of one image in one model.

    Attributes:
        name: of the image file.
        picture: the image after the test pipeline, before padding and normalisation,
            ``[h, w, 3]`` RGB. All pixel coordinates are in this picture.
        patch_size: pixels (rows, columns) of a patch of the patch embedding.
        grid_size: patches along (rows, columns) behind the patch embedding, padding included.
        layers: the attention layers that have run.
        refinement: PRR's weights for the head's input, on the patches ``[H, W]``; None without
            PRR. The rest of the sum of 1 is on prefix tokens.
        pool: of :class:`locat_mm.models.PatchRepresentationRefinement`.
        segmentation: the predicted class of every pixel of the picture, ``[h, w]``; None without
            a decoder.
        num_class_tokens: of the backbone.
    """

    name: str
    picture: np.ndarray
    patch_size: tuple[int, int]
    grid_size: tuple[int, int]
    layers: list[LayerRecord]
    refinement: Tensor | None = None
    pool: str | None = None
    segmentation: np.ndarray | None = None
    num_class_tokens: int = 0

    def choose_layers(self, layers: Sequence[int] | None = None) -> list[int]:
        """Numbers of the layers to draw: the given ones, or at most six from first to last.

        Args:
            layers: negative numbers count from the end.

        Raises:
            ValueError: if there is no such layer.
        """
        count = len(self.layers)
        if layers is None:
            return sorted({round(i) for i in np.linspace(0, count - 1, min(count, _NUM_LAYERS))})
        wrong = [i for i in layers if not -count <= i < count]
        if wrong or not layers:
            raise ValueError(f'{self.name} has run through layers 0..{count - 1}, not {wrong}')
        return [i % count for i in layers]

    def patch_pixels(self, grid_size: tuple[int, int]) -> tuple[int, int]:
        """Pixels (rows, columns) of a patch in a grid of this size. Swin's stages merge patches.

        Args:
            grid_size: of a layer, or of another map of the image's patches.
        """
        # Swin merges 2×2 patches and rounds odd sides up.
        ratio = max(a / b for a, b in zip(self.grid_size, grid_size, strict=True))
        merged = 2 ** math.ceil(math.log2(ratio))
        return self.patch_size[0] * merged, self.patch_size[1] * merged

    def point_of(self, row: int, column: int) -> tuple[float, float]:
        """The centre (x, y) in pixels of a patch of the patch embedding.

        Raises:
            ValueError: if it is outside of the picture.
        """
        (height, width), (rows, columns) = self.picture.shape[:2], self.patch_size
        grid = math.ceil(height / rows), math.ceil(width / columns)
        if not (0 <= row < grid[0] and 0 <= column < grid[1]):
            raise ValueError(
                f'{self.name}: patch ({row}, {column}) is outside of its {grid[0]}×{grid[1]} '
                f'patches, rows 0..{grid[0] - 1} and columns 0..{grid[1] - 1}'
            )
        return (column + 0.5) * columns, (row + 0.5) * rows

    def patch_at(self, layer: LayerRecord, x: float, y: float) -> tuple[int, int]:
        """The patch (row, column) of a layer in which a pixel lies.

        Raises:
            ValueError: if the pixel is outside of the picture.
        """
        height, width = self.picture.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f'{self.name}: point ({x}, {y}) is outside of its {width}×{height} pixels, as the '
                'test pipeline makes them'
            )
        rows, columns = self.patch_pixels(layer.grid_size)
        return int(y // rows), int(x // columns)


class Inspector:
    """A trained model with its test pipeline. Call it with an image.

    Args:
        config: config file of mmpretrain or mmseg.
        checkpoint: a source for :func:`locat_mm.checkpoint.read_state_dict`; every key must fit.
        overrides: dotted key -> value (``--cfg-options``).

    Raises:
        FileNotFoundError: if there is no such config or checkpoint.
        ValueError: if the config has no test pipeline or the checkpoint does not fit.
    """

    def __init__(self, config: str, checkpoint: str, overrides: dict | None = None) -> None:
        cfg = load_config(config, overrides)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        self.cfg = cfg
        self.model: Any = load_model(cfg, checkpoint)
        self.pipeline = Compose(_test_pipeline(cfg))

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels (rows, columns) of a patch of the patch embedding."""
        return _patch_size(find_patch_embed(find_backbone(self.model))[1])

    def __call__(
        self, image: str | Path, head_limit: int = 0, features: bool = False
    ) -> Inspection:
        """Run the model on an image and record it.

        Args:
            image: path of the file.
            head_limit, features: of :class:`~locat_mm.analysis.recording.Recorder`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read, or if the model has no supported attention or runs
                several times for one image.
        """
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f'there is no image {path} (looked from {Path.cwd()})')
        if imread(path) is None:
            raise ValueError(f'{path} is no image that OpenCV can read')
        sample = self.pipeline(dict(img_path=str(path)))
        batch = {key: [value] for key, value in sample.items()}
        with Recorder(self.model, head_limit, features) as recorder, torch.no_grad():
            (result,) = self.model.test_step(batch)
        layers = recorder.records()
        assert recorder.grid_size is not None
        inspection = Inspection(
            path.name,
            _to_picture(sample['inputs']),
            _patch_size(recorder.patch_embed),
            recorder.grid_size,
            layers,
            num_class_tokens=recorder.num_class_tokens,
        )
        if 'pred_sem_seg' in result:
            mask = result.pred_sem_seg.data[0].cpu().numpy().astype(np.uint16)
            height, width = inspection.picture.shape[:2]
            inspection.segmentation = cv2.resize(
                mask, (width, height), interpolation=cv2.INTER_NEAREST
            )
        weights = recorder.refinement()
        if weights is not None and recorder.neck is not None:
            height, width = layers[-1].grid_size
            inspection.refinement = weights[-height * width :].unflatten(0, (height, width))
            inspection.pool = recorder.neck.pool
        return inspection


def _test_pipeline(cfg: Config) -> list[dict]:
    """The transforms of the test pipeline, except those that read annotations."""
    dataset = next(leaves((cfg.get('test_dataloader') or {}).get('dataset') or {}))
    if 'pipeline' not in dataset:
        raise ValueError(f'{cfg.filename} has no test_dataloader with a pipeline for its images')
    return [step for step in dataset['pipeline'] if not step['type'].endswith('LoadAnnotations')]


def _to_picture(inputs: Tensor) -> np.ndarray:
    """Pipeline output ``[3, h, w]`` to RGB ``[h, w, 3]``, uint8."""
    picture = inputs.permute(1, 2, 0).numpy()
    if picture.dtype == np.uint8:
        return picture[..., ::-1]  # OpenMMLab's pipelines give BGR
    # The pipeline has normalised the image, as torchvision's transforms do, in RGB.
    low, high = picture.min(), picture.max()
    return (255 * (picture - low) / max(high - low, 1e-12)).astype(np.uint8)


def _patch_size(patch_embed: nn.Module) -> tuple[int, int]:
    first = next(m for m in patch_embed.modules() if isinstance(m, nn.Conv2d))
    height, width = first.stride
    return int(height), int(width)
