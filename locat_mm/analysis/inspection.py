"""A config, a checkpoint and an image: what the model makes of it, recorded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv import imread
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..checkpoint import check_fit, read_state_dict
from ..config import load_config
from .complexity import build_model
from .recording import LayerRecord, Recorder

__all__ = ['Inspection', 'Inspector']

#: So many layers are drawn if none are named.
_NUM_LAYERS = 6


@dataclass
class Inspection:
    """One image seen by one model.

    Attributes:
        name: of the image file.
        picture: what the test pipeline makes of the image, before padding and normalisation,
            ``[h, w, 3]`` RGB. Pixels below are this picture's.
        patch_size: rows and columns of pixels in a patch of the patch embedding.
        grid_size: patches along (rows, columns) behind the patch embedding, padding included.
        layers: the attention layers that have run.
        refinement: PRR's weights for what the head reads, on the patches ``[H, W]``; None without
            PRR. What is missing to 1 goes to prefix tokens.
        pool: what the head reads of PRR, see
            :class:`locat_mm.models.PatchRepresentationRefinement`.
    """

    name: str
    picture: np.ndarray
    patch_size: tuple[int, int]
    grid_size: tuple[int, int]
    layers: list[LayerRecord]
    refinement: Tensor | None = None
    pool: str | None = None

    def choose_layers(self, layers: Sequence[int] | None = None) -> list[int]:
        """Numbers of layers: those named, or at most six from the first to the last.

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
        """Pixels (rows, columns) of a patch in a grid of this size; stages of Swin merge patches.

        Args:
            grid_size: of a layer, or of another map of the image's patches.
        """
        # Odd sides are rounded up when patches are merged, two by two.
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
    """A trained model and its test pipeline, ready for images.

    Args:
        config: config file of mmpretrain or mmseg.
        checkpoint: anything that :func:`locat_mm.checkpoint.read_state_dict` reads; every key
            must fit.
        overrides: dotted key -> value (``--cfg-options``).

    Raises:
        FileNotFoundError: if the config or the checkpoint is not there.
        ValueError: if the config has no test pipeline or the checkpoint is of another model.
    """

    def __init__(self, config: str, checkpoint: str, overrides: dict | None = None) -> None:
        cfg = load_config(config, overrides)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        self.model = _load_model(cfg, checkpoint)
        self.pipeline = Compose(_test_pipeline(cfg))

    def __call__(self, image: str | Path) -> Inspection:
        """Run the model on an image.

        Args:
            image: path of the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read, or the model has no attention to look into or runs
                several times for one image.
        """
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f'there is no image {path} (looked from {Path.cwd()})')
        if imread(path) is None:
            raise ValueError(f'{path} is no image that OpenCV can read')
        sample = self.pipeline(dict(img_path=str(path)))
        batch = {key: [value] for key, value in sample.items()}
        with Recorder(self.model) as recorder, torch.no_grad():
            self.model.test_step(batch)
        layers = recorder.records()
        assert recorder.grid_size is not None
        inspection = Inspection(
            path.name,
            _to_picture(sample['inputs']),
            _patch_size(recorder.patch_embed),
            recorder.grid_size,
            layers,
        )
        weights = recorder.refinement()
        if weights is not None and recorder.neck is not None:
            height, width = layers[-1].grid_size
            inspection.refinement = weights[-height * width :].unflatten(0, (height, width))
            inspection.pool = recorder.neck.pool
        return inspection


def _load_model(cfg: Config, checkpoint: str) -> Any:
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model: give a complete config, no part of one')
    model = build_model(cfg)
    model.load_state_dict(check_fit(model, read_state_dict(checkpoint), checkpoint).state)
    device = get_device()
    if device == 'cpu':
        model = revert_sync_batchnorm(model)
    return model.to(device).eval()


def _test_pipeline(cfg: Config) -> list[dict]:
    """The steps that test images go through, without those that read annotations."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    while dataset and 'pipeline' not in dataset:  # ConcatDataset and other wrappers
        inner = dataset.get('dataset') or dataset.get('datasets')
        dataset = inner[0] if isinstance(inner, (list, tuple)) else inner
    if not dataset:
        raise ValueError(f'{cfg.filename} has no test_dataloader with a pipeline for its images')
    return [step for step in dataset['pipeline'] if not step['type'].endswith('LoadAnnotations')]


def _to_picture(inputs: Tensor) -> np.ndarray:
    """``[3, h, w]`` of a pipeline to ``[h, w, 3]`` RGB of bytes."""
    picture = inputs.permute(1, 2, 0).numpy()
    if picture.dtype == np.uint8:
        return picture[..., ::-1]  # as OpenMMLab reads files; the preprocessor turns it around
    # Normalised by the pipeline itself, as torchvision's transforms do, in RGB.
    low, high = picture.min(), picture.max()
    return (255 * (picture - low) / max(high - low, 1e-12)).astype(np.uint8)


def _patch_size(patch_embed: nn.Module) -> tuple[int, int]:
    first = next(m for m in patch_embed.modules() if isinstance(m, nn.Conv2d))
    height, width = first.stride
    return int(height), int(width)
