"""Small data sets and models, and the loops run on them in this process."""

from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from locat_mm.config import load_config
from locat_mm.engine import build_runner

from . import ROOT


def write_objects(folder: Path, train: int = 23, val: int = 9) -> None:
    """Images of three classes, told apart by a colour under noise."""
    rng = np.random.default_rng(0)
    for split, count in (('train', train), ('val', val)):
        for i in range(count):
            label = i % 3
            image = rng.integers(0, 120, (16, 16, 3))
            image[..., label] += 12
            path = folder / split / str(label) / f'{i:03}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image.astype(np.uint8))


def write_scenes(folder: Path, training: int = 5, validation: int = 3) -> None:
    """Scenes of 16×24 pixels, of classes 0, 1, 2; some pixels are ignored."""
    rng = np.random.default_rng(1)
    for split, count in (('training', training), ('validation', validation)):
        for i in range(count):
            mask = np.kron(rng.integers(0, 3, (4, 6)), np.ones((4, 4)))
            image = rng.integers(0, 100, (16, 24, 3)) + 50 * mask[..., None]
            mask[rng.random(mask.shape) < 0.2] = 255
            mask[:8, :8] = 255  # a patch with no label at all
            for part, content in (('images', image), ('annotations', mask)):
                path = folder / part / split / f'{i:03}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), content.astype(np.uint8))


TINY = dict(
    type='locat_mm.LocAtViT',
    arch=dict(embed_dim=24, depth=2, num_heads=2),
    img_size=16,
    patch_size=8,
)
IN_ORDER = dict(type='DefaultSampler', shuffle=False)


def knn_config(folder: Path, work_dir: Path, **loop) -> Config:
    """A classifier of three classes that is tested by neighbours, as a user would write it."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

    def loader(split: str, batch_size: int) -> dict:
        return dict(
            batch_size=batch_size,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=IN_ORDER,
            dataset=dict(
                type='CustomDataset', data_root=str(folder), data_prefix=split, pipeline=pipeline
            ),
        )

    knn = dict(bank_dataloader=loader('train', 4), k=(1, 5, 10), **loop)
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
                backbone={**TINY, 'out_type': 'raw'},
                neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=2),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=24),
            ),
            test_dataloader=loader('val', 2),
            test_evaluator=dict(type='locat_mm.KNNAccuracy'),
            test_cfg=dict(type='locat_mm.KNNTestLoop', **knn),
            work_dir=str(work_dir),
            randomness=dict(seed=0),
            log_level='ERROR',
        )
    )


def in_context_config(folder: Path, work_dir: Path, **model) -> Config:
    """The demo's config with a tiny model on small scenes."""
    cfg = load_config(str(ROOT / 'configs' / 'demo' / 'in_context_locatvit.py'), {}, str(work_dir))
    cfg.model.backbone = {**TINY, 'out_type': 'featmap', 'final_norm': False, 'frozen': True}
    cfg.model.update(num_neighbours=4, temperature=0.1, num_classes=3, **model)
    classes = dict(classes=('a', 'b', 'c'))
    for loader in (cfg.test_dataloader, cfg.test_cfg.bank_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.update(data_root=str(folder), metainfo=classes)
        loader.dataset.pipeline[2].num_classes = 3
    cfg.visualizer.name = str(work_dir)  # mmengine keeps one per name
    cfg.log_level = 'ERROR'
    return cfg


def quick_runner(cfg: Config) -> Runner:
    """A Runner that does not format its config for the log, which takes longer than all else."""
    with mock.patch.object(Config, 'pretty_text', ''):
        return build_runner(cfg)


def run(cfg: Config) -> tuple[Runner, dict]:
    """The Runner with reproducible weights, and what its test gives."""
    runner = quick_runner(cfg)
    torch.manual_seed(0)
    for parameter in runner.model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return runner, runner.test()
