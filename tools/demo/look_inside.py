"""The demo's page: two models on the scene in the middle of LocAt's scores."""

from pathlib import Path

import numpy as np
import torch
from mmcv import imread
from mmengine.dataset import pseudo_collate
from mmseg.evaluation import IoUMetric

from locat_mm.analysis.inspection import Inspector
from locat_mm.analysis.page import write_page
from locat_mm.cli.pages import look_at

__all__ = ['first_scenes', 'inspector_of', 'mean_iou', 'median_scenes', 'write_demo_page']

#: Scenes that the model takes at a time.
_BATCH = 50


def write_demo_page(models: dict[str, tuple[Path, Path]], scenes: Path, out: Path) -> Path:
    """Write the page of several models for one validation scene.

    Args:
        models: name -> (segmentation config, work directory of its training). The last one
            decides on the scene.
        scenes: folder of images and masks.
        out: the page to write.

    Returns:
        ``out``.
    """
    chosen = median_scenes(list(models.values())[-1], scenes, 1)
    subjects = [look_at(inspector_of(model), name, chosen) for name, model in models.items()]
    return write_page(subjects, out)


def inspector_of(model: tuple[Path, Path]) -> Inspector:
    """A trained model with its test pipeline.

    Args:
        model: segmentation config, and work directory of its training.
    """
    config, work_dir = model
    return Inspector(str(config), (work_dir / 'last_checkpoint').read_text().strip())


def first_scenes(scenes: Path, count: int) -> list[Path]:
    """The first validation scenes by name."""
    return sorted((scenes / 'images' / 'validation').glob('*.png'))[:count]


def median_scenes(model: tuple[Path, Path], scenes: Path, count: int) -> list[Path]:
    """The validation scenes in the middle of a model's scores, the worst of them first.

    The score of a scene is the mIoU over the classes that it or its map has.

    Args:
        model: segmentation config, and work directory of its training.
        scenes: folder of images and masks.
        count: number of scenes.
    """
    inspector = inspector_of(model)
    paths = sorted((scenes / 'images' / 'validation').glob('*.png'))
    scores = {}
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        samples = [inspector.pipeline(dict(img_path=str(path))) for path in batch]
        with torch.no_grad():
            results = inspector.model.test_step(pseudo_collate(samples))
        for path, result in zip(batch, results, strict=True):
            truth = imread(scenes / 'annotations' / 'validation' / path.name, 'unchanged')
            scores[path] = mean_iou(result.pred_sem_seg.data[0].cpu(), truth)
    ordered = sorted(paths, key=lambda path: (scores[path], path))
    first = max(len(ordered) // 2 - (count - 1) // 2, 0)
    return ordered[first : first + count]


def mean_iou(predicted: torch.Tensor, truth: np.ndarray) -> float:
    """mIoU of one scene, within 0 and 1, over the classes that its mask or the map has.

    Args:
        predicted: map ``[H, W]``.
        truth: mask ``[H, W]``; 255 has no label.
    """
    areas = IoUMetric.intersect_and_union(predicted, torch.from_numpy(truth), 256, ignore_index=255)
    intersection, union = (area.numpy() for area in areas[:2])
    return float(np.mean(intersection[union > 0] / union[union > 0]))
