"""Slices of NIfTI volumes against nibabel; bad files are named."""

import gzip

import nibabel
import numpy as np
import pytest

from locat_mm.datasets import (
    BadSampleError,
    CTWindow,
    LoadNIfTI,
    LoadNIfTIAnnotations,
    NIfTISlices,
    RandomIntensity,
)
from tests.support.rasters import sample, write_volume


@pytest.fixture
def units():
    return np.random.default_rng(0).integers(-1000, 2000, (9, 7, 5)).astype(np.int16)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 3, (9, 7, 5)).astype(np.uint8)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_slices_are_nibabels(tmp_path, units, labels, axis):
    """Each slice of the data set, in order; the later axis of the file gives the rows."""
    write_volume(tmp_path / 'images' / 'b.nii.gz', units)
    write_volume(tmp_path / 'images' / 'a.nii.gz', units[:, :, :3])
    write_volume(tmp_path / 'masks' / 'b.nii.gz', labels)
    write_volume(tmp_path / 'masks' / 'a.nii.gz', labels[:, :, :3])
    dataset = NIfTISlices(
        axis=axis,
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        metainfo=dict(classes=('a', 'b', 'c')),
        pipeline=[
            dict(type='locat_mm.LoadNIfTI', axis=axis),
            dict(type='locat_mm.LoadNIfTIAnnotations', axis=axis),
        ],
    )
    first = (9, 7, 3)[axis]
    assert len(dataset) == first + units.shape[axis]
    for index in (0, first, len(dataset) - 1):
        data = dataset[index]
        name, number = ('a', index) if index < first else ('b', index - first)
        for key, folder in (('img', 'images'), ('gt_seg_map', 'masks')):
            volume = nibabel.load(tmp_path / folder / f'{name}.nii.gz').get_fdata()
            expected = volume.take(number, axis=axis).T
            assert (data[key].reshape(expected.shape) == expected).all()
        assert data['img'].shape == (*expected.shape, 1) and data['img'].dtype == np.float32
        assert data['seg_fields'] == ['gt_seg_map']


def test_scaling_and_channels(tmp_path):
    stored = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    stored.header.set_slope_inter(2, -1000)
    nibabel.save(stored, tmp_path / 'scaled.nii')
    data = LoadNIfTI()(sample(tmp_path / 'scaled.nii', slice_index=3))
    expected = nibabel.load(tmp_path / 'scaled.nii').get_fdata()[..., 3].T
    assert (data['img'][..., 0] == expected).all() and expected.min() < -900
    mri = np.random.default_rng(0).normal(size=(4, 5, 3, 4)).astype(np.float32)
    write_volume(tmp_path / 'mri.nii.gz', mri)
    data = LoadNIfTI(channels=[3, 0])(sample(tmp_path / 'mri.nii.gz', slice_index=1))
    assert (data['img'] == mri[:, :, 1, [3, 0]].transpose(1, 0, 2)).all()
    write_volume(tmp_path / 'flat.nii', mri[:, :, 0, 0])
    assert (LoadNIfTI()(sample(tmp_path / 'flat.nii'))['img'][..., 0] == mri[:, :, 0, 0].T).all()


def test_nan(tmp_path, units, labels):
    values = units.astype(np.float32)
    values[1, 2, 0] = np.nan
    image = write_volume(tmp_path / 'image.nii', values)
    mask = write_volume(tmp_path / 'mask.nii', labels)
    info = sample(image, mask, slice_index=0)
    with pytest.raises(BadSampleError, match=r'image.nii: slice 0 has NaN .* in 1 pixels'):
        LoadNIfTI()(dict(info))
    data = LoadNIfTIAnnotations()(LoadNIfTI(nan='nodata', fill=-1000)(dict(info)))
    assert data['img'][2, 1, 0] == -1000
    expected = labels[:, :, 0].T.copy()
    expected[2, 1] = 255
    assert (data['gt_seg_map'] == expected).all()


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ('shape', r'labels have shape \(9, 7, 4\), their image .*image.nii.gz \(9, 7, 5\)'),
        ('affine', r'another affine than their image .*image.nii.gz; corners are 3 mm apart'),
        ('channels', 'has 2 channels: labels have one'),
        ('cut', 'cannot be read by nibabel'),
        ('text', 'cannot be read by nibabel'),
        ('missing', 'cannot be read by nibabel: .*No such file'),
        ('values', 'the labels are from 0 to 300'),
    ],
)
def test_bad_labels_are_named(tmp_path, units, labels, change, said):
    image = write_volume(tmp_path / 'image.nii.gz', units)
    path = tmp_path / 'bad.nii.gz'
    affine = np.diag([0.7, 0.8, 5.0, 1.0])
    if change == 'affine':
        affine[2, 3] = 3
    voxels = {
        'shape': labels[:, :, :4],
        'channels': np.stack([labels, labels], axis=-1),
        'values': np.where(labels == 2, 300, labels.astype(np.int16)),
    }.get(change, labels)
    write_volume(path, voxels, affine)
    if change == 'cut':
        path.write_bytes(path.read_bytes()[:-200])
    elif change == 'text':
        path.write_bytes(gzip.compress(b'no volume'))
    elif change == 'missing':
        path.unlink()
    data = LoadNIfTI()(sample(image, path, slice_index=4))
    with pytest.raises(BadSampleError, match=rf'bad.nii.gz.*{said}'):
        LoadNIfTIAnnotations()(data)


def test_wrong_use(tmp_path, units):
    image = write_volume(tmp_path / 'image.nii', units)
    with pytest.raises(BadSampleError, match='5 slices along axis 2.*NIfTISlices'):
        LoadNIfTI()(sample(image))
    with pytest.raises(ValueError, match='axis=2 in LoadNIfTI, but 0 in NIfTISlices'):
        LoadNIfTI()(sample(image, slice_index=0, slice_axis=0))
    with pytest.raises(BadSampleError, match=r'1 channels: channels=\[1\]'):
        LoadNIfTI(channels=[1])(sample(image, slice_index=0))
    for wrong in (dict(axis=3), dict(channels=[]), dict(nan='drop')):
        with pytest.raises(ValueError):
            LoadNIfTI(**wrong)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'nibabel', None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install nibabel .*\[medical\]'):
        LoadNIfTI()


def test_windows(units):
    """The formula of DICOM's linear windows without its half-step, in float64."""
    image = units[:, :, :1].astype(np.float32)
    pairs = [(400, 40), (1500, -600)]
    found = CTWindow(window=pairs)(dict(img=image))['img']
    for channel, (width, level) in enumerate(pairs):
        low, high = level - width / 2, level + width / 2
        expected = np.interp(units[:, :, 0].astype(np.float64), [low, high], [0, 255])
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-3)
    assert (CTWindow(window=400, level=40)(dict(img=image[..., 0]))['img'] == found[..., :1]).all()
    for wrong in (dict(window=400), dict(window=0, level=1), dict(window=[(1, 2)], level=3)):
        with pytest.raises(ValueError):
            CTWindow(**wrong)
    with pytest.raises(ValueError, match='2 channels'):
        CTWindow(window=pairs)(dict(img=found))


@pytest.mark.parametrize('channels', [1, 4, 13])
def test_random_intensity(channels):
    image = np.random.default_rng(0).normal(3000, 500, (20, 21, channels)).astype(np.float32)
    np.random.seed(0)
    found = RandomIntensity(prob=1)(dict(img=image))['img'].astype(np.float64)
    ratio = found.std(axis=(0, 1)) / image.std(axis=(0, 1), dtype=np.float64)
    shift = (found.mean(axis=(0, 1)) - image.mean(axis=(0, 1), dtype=np.float64)) / image.std(
        axis=(0, 1), dtype=np.float64
    )
    assert np.ptp(ratio) < 1e-4 and 0.8 <= ratio[0] <= 1.2 and ratio[0] != 1
    assert np.ptp(shift) < 1e-4 and abs(shift[0]) <= 0.2 and shift[0] != 0
    assert RandomIntensity(prob=0)(dict(img=image))['img'] is image
    with pytest.raises(ValueError, match='contrast=1'):
        RandomIntensity(contrast=1)
