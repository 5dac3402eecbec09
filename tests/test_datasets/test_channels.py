"""Numbers of channels in configs, statistics of channels, and stock transforms on many channels."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from locat_mm.config import config_path, load_config
from locat_mm.datasets import ChannelStatistics, GuardedPipeline, check_channels, measure_channels
from locat_mm.models import MultiChannelSegDataPreProcessor
from tests.support import ROOT
from tests.support.rasters import sample, write_raster


@pytest.mark.parametrize('channels', [1, 2, 4, 8, 13])
def test_stock_transforms_keep_all_channels(channels):
    init_default_scope('mmseg')
    image = np.random.default_rng(0).integers(0, 9000, (40, 50, channels)).astype(np.float32)
    mask = np.zeros((40, 50), np.uint8)
    steps = [
        dict(type='RandomResize', scale=(80, 60), ratio_range=(0.8, 1.5), keep_ratio=True),
        dict(type='Resize', scale=(60, 48), keep_ratio=False),
        dict(type='RandomCrop', crop_size=(32, 32), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=[0.5, 0.5], direction=['horizontal', 'vertical']),
        dict(type='locat_mm.RandomIntensity', prob=1.0),
        dict(type='PackSegInputs'),
    ]
    data = sample('x', img=image, gt_seg_map=mask, img_shape=(40, 50), ori_shape=(40, 50))
    data['seg_fields'] = ['gt_seg_map']
    for step in steps:
        data = TRANSFORMS.build(step)(data)
    assert data['inputs'].shape == (channels, 32, 32) and data['inputs'].std() > 500
    assert data['data_samples'].gt_sem_seg.data.shape == (1, 32, 32)


@pytest.mark.parametrize('channels', [1, 4, 13])
def test_preprocessor(channels):
    mean, std = np.arange(channels) + 5.0, np.arange(channels) + 2.0
    ours = MultiChannelSegDataPreProcessor(mean.tolist(), std.tolist(), size=(8, 8), pad_val=0)
    image = torch.rand(channels, 8, 8, dtype=torch.float64) * 100
    given = dict(inputs=[image], data_samples=None)
    found = ours(given)['inputs'][0].double()
    expected = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not ours.state_dict(), 'as in mmseg, no keys in checkpoints'
    other = dict(
        inputs=[torch.rand(channels + 1, 8, 8)], data_samples=[SimpleNamespace(img_path='a.tif')]
    )
    with pytest.raises(ValueError, match=f'a.tif has {channels + 1} channels'):
        ours(other)


def test_preprocessor_arguments():
    for wrong, said in (
        (dict(mean=[1, 2], std=[1]), 'got 2 and 1 values'),
        (dict(mean=[], std=[]), 'got 0 and 0'),
        (dict(mean=[1, 2], std=[1, 0]), 'positive'),
        (dict(mean=[1], std=[1], bgr_to_rgb=True), 'bgr_to_rgb=True reverses'),
    ):
        with pytest.raises(ValueError, match=said):
            MultiChannelSegDataPreProcessor(**wrong)


@pytest.fixture
def cfg():
    """A config for four bands without a mistake."""
    cfg = load_config(config_path('_base_/datasets/geotiff_folder.py'))
    cfg.model = dict(
        data_preprocessor=dict(
            type='locat_mm.MultiChannelSegDataPreProcessor', mean=[1] * 4, std=[1] * 4
        ),
        backbone=dict(type='locat_mm.LocAtViT', in_channels=4),
    )
    check_channels(cfg)
    return cfg


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (
            {'model.backbone.in_channels': 5},
            'mean has 4 values, and model.backbone.in_channels is 5',
        ),
        ({'model.data_preprocessor.std': [1, 1, 1]}, 'std has 3 values'),
        ({'model.data_preprocessor.type': 'SegDataPreProcessor'}, 'locat_mm.MultiChannelSegData'),
        ({'train_dataloader.dataset.pipeline.0.bands': [3, 2, 1]}, 'give 3 channels'),
        ({'train_dataloader.dataset.pipeline.4.type': 'PhotoMetricDistortion'}, 'RandomIntensity'),
        ({'val_dataloader.dataset.pipeline.2.type': 'CLAHE'}, 'val_dataloader: CLAHE'),
        ({'train_dataloader.dataset.pipeline.4.type': 'RandomCutOut'}, r'fill_in=\(0, 0, 0, 0\)'),
    ],
)
def test_one_clear_error(cfg, change, said):
    cfg.merge_from_dict(change)
    with pytest.raises(ValueError, match=said):
        check_channels(cfg)


def test_three_bands_are_not_reversed(cfg):
    three = dict(mean=[1] * 3, std=[1] * 3, type='SegDataPreProcessor', bgr_to_rgb=True)
    cfg.model = dict(
        data_preprocessor=three, backbone=dict(type='locat_mm.LocAt', backbone=dict(type='X'))
    )
    with pytest.raises(ValueError, match='bgr_to_rgb=True would reverse them'):
        check_channels(cfg)
    cfg.model.data_preprocessor.bgr_to_rgb = False
    check_channels(cfg)


def test_pad_and_windows():
    cfg = load_config(config_path('_base_/datasets/nifti_folder.py'))
    cfg.model = dict(backbone=dict(in_channels=13), data_preprocessor=dict(mean=[1], std=[1]))
    cfg.train_dataloader.dataset.pipeline.append(dict(type='Pad', size=(9, 9)))
    with pytest.raises(ValueError, match='Pad takes at most 4'):
        check_channels(cfg)
    windows = [(400, 40), (80, 40), (2000, 400)]
    cfg = load_config(config_path('_base_/datasets/nifti_folder.py'))
    cfg.model = dict(backbone=dict(in_channels=1), data_preprocessor=dict(mean=[1], std=[1]))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline.insert(2, dict(type='locat_mm.CTWindow', window=windows))
    with pytest.raises(ValueError, match='give 3 channels'):
        check_channels(cfg)
    cfg.model.backbone.in_channels = 3
    # Three windows are a picture of 8 bits.
    cfg.train_dataloader.dataset.pipeline[5].type = 'PhotoMetricDistortion'
    check_channels(cfg)


def test_configs_of_pictures_pass():
    """Ours and stock ones, also with one value for all channels."""
    names = ['configs/locat/locatvit_tiny_ade20k.py', 'configs/locat/locatvit_tiny_imagenet.py']
    stock = ['mmpretrain::lenet/lenet5_mnist.py']
    stock += ['mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py']
    paths = [*(str(ROOT / name) for name in names), *map(config_path, stock)]
    for path in paths:
        check_channels(load_config(path))


def test_statistics_are_numpys():
    """Large means beside small deviations, in one pass, with pixels left out."""
    draw = np.random.default_rng(0)
    images = [draw.normal(1e6, 0.5, (draw.integers(3, 30), 17, 5)) for _ in range(20)]
    masks = [draw.random(image.shape[:2]) < 0.3 for image in images]
    parts = [ChannelStatistics.of_image(*pair) for pair in zip(images, masks, strict=True)]
    total = copy.copy(parts[0])
    for part in parts[1:]:
        total = total + part
    pixels = np.concatenate([i[~m] for i, m in zip(images, masks, strict=True)])
    assert (total.images, total.pixels) == (20, len(pixels))
    assert total.nodata == sum(mask.sum() for mask in masks)
    np.testing.assert_allclose(total.mean, pixels.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(total.std, pixels.std(axis=0), rtol=1e-9)


class Tiles(BaseDataset):
    """The files of a folder."""

    def __init__(self, paths, pipeline):
        self.paths = paths
        super().__init__(pipeline=pipeline)

    def load_data_list(self):
        return [sample(path) for path in self.paths]


def tiles(tmp_path, arrays, **options):
    paths = [write_raster(tmp_path / f'{i}.tif', a, **options) for i, a in enumerate(arrays)]
    return Tiles(paths, [dict(type='locat_mm.LoadGeoTIFF'), dict(type='mmseg.CLAHE')])


def test_statistics_of_data_sets(tmp_path):
    arrays = np.random.default_rng(0).integers(1, 5000, (3, 4, 6, 7)).astype(np.uint16)
    found = measure_channels([tiles(tmp_path, arrays[:2]), tiles(tmp_path / 'more', arrays[2:])])
    np.testing.assert_allclose(found.mean, arrays.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, arrays.std(axis=(0, 2, 3)), rtol=1e-12)
    with pytest.raises(ValueError, match='no images'):
        measure_channels([])
    with pytest.raises(ValueError, match=r'1.tif has 2 channels, .*0.tif 4'):
        measure_channels([tiles(tmp_path, [arrays[0], arrays[1][:2]])])
    arrays[:, 2] = 7
    with pytest.raises(ValueError, match=r'channel 2 \(counted from 0\) is 7 in every pixel'):
        measure_channels([tiles(tmp_path, arrays)])
    with pytest.raises(ValueError, match='0.tif is empty'):
        measure_channels([tiles(tmp_path, arrays[:1] * 0, nodata=0)])


def test_a_failing_transform_is_not_a_damaged_file(tmp_path):
    """OpenCV and Pillow cannot decode 13 bands, which is no damage."""
    values = np.random.default_rng(0).integers(1, 5000, (13, 8, 8)).astype(np.uint16)
    dataset = Tiles(
        [write_raster(tmp_path / 'many.tif', values)],
        [dict(type='locat_mm.LoadGeoTIFF'), dict(type='mmseg.PhotoMetricDistortion')],
    )
    dataset.pipeline = GuardedPipeline(dataset)
    with pytest.raises(
        RuntimeError, match='many.tif: read without a fault, but the pipeline fails'
    ):
        for _ in range(20):  # at random
            dataset[0]
