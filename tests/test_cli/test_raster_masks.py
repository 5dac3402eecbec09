"""Masks in the place of their images, read again by rasterio and nibabel."""

import nibabel
import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint

from locat_mm.cli.pictures import Picture, find_pictures
from locat_mm.cli.raster_masks import is_georeferenced, view, write_geotiff, write_nifti
from locat_mm.cli.results import ResultWriter
from locat_mm.datasets import BadSampleError, LoadNIfTI, LoadNIfTIAnnotations
from tests.support.rasters import sample, write_raster, write_volume

PALETTE = [[0, 0, 0], [10, 20, 30], [250, 0, 0]]


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
def test_slices_return_to_their_places(tmp_path, axis, suffix):
    """What the loaders take apart, the writer joins again; an oblique affine stays."""
    labels = np.random.default_rng(0).integers(0, 3, (6, 5, 4)).astype(np.uint8)
    affine = np.array([[-0.7, 0.1, 0, 9], [0.1, 0.7, 0, -1], [0, 0.02, 2.5, 5], [0, 0, 0, 1]])
    image = write_volume(tmp_path / f'image{suffix}', labels.astype(np.int16) * 100, affine)
    mask = write_volume(tmp_path / f'mask{suffix}', labels, affine)
    slices = []
    for index in range(labels.shape[axis]):
        data = LoadNIfTI(axis=axis)(sample(image, mask, slice_index=index))
        slices.append(LoadNIfTIAnnotations(axis=axis)(data)['gt_seg_map'])
    write_nifti(tmp_path / f'out/again{suffix}', slices, image, axis)
    again = nibabel.load(tmp_path / f'out/again{suffix}')
    assert (np.asarray(again.dataobj) == labels).all() and again.get_data_dtype() == np.uint8
    assert np.array_equal(again.affine, nibabel.load(image).affine)


def test_control_points_are_kept(tmp_path):
    points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in ((0, 0), (0, 8), (6, 0))]
    values = np.ones((2, 6, 8), np.uint16)
    image = write_raster(tmp_path / 'a.tif', values, place=False, gcps=points, crs='EPSG:4326')
    write_geotiff(tmp_path / 'm.tif', values[0].astype(np.uint8), image, PALETTE, 255)
    with rasterio.open(tmp_path / 'm.tif') as mask:
        found, crs = mask.gcps
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]
    assert crs == 'EPSG:4326'
    with pytest.raises(BadSampleError, match='a.tif has 6×8 pixels'):
        write_geotiff(tmp_path / 'm.tif', np.zeros((5, 8), np.uint8), image, PALETTE, 255)


def test_georeference_is_found_without_rasterio(tmp_path):
    values = np.zeros((3, 6, 8), np.uint8)
    assert is_georeferenced(write_raster(tmp_path / 'a.tif', values))
    assert not is_georeferenced(write_raster(tmp_path / 'b.tif', values, place=False))
    path = write_raster(tmp_path / 'c.png', values, place=False, driver='PNG')
    assert not is_georeferenced(path)


def test_more_classes_than_bytes(tmp_path):
    names = [str(i) for i in range(300)]
    writer = ResultWriter(tmp_path / 'out', names, [[0, 0, 0]] * 300, 0.5)
    image = np.random.default_rng(0).normal(size=(6, 8, 2)).astype(np.float32)
    path = write_raster(tmp_path / 'a.tif', image.transpose(2, 0, 1))
    nodata = np.zeros((6, 8), bool)
    nodata[0] = True
    writer.write_raster(Picture(path, 'a'), image, np.full((6, 8), 299), nodata)
    with rasterio.open(tmp_path / 'out/masks/a.tif') as mask:
        values = mask.read(1)
        assert mask.nodata == 65535 and (values[0] == 65535).all() and (values[1:] == 299).all()


def test_names_of_volumes(tmp_path):
    for name in ('a.nii.gz', 'b.nii', 'c.nii', 'c.nii.gz', 'd.png'):
        (tmp_path / name).write_bytes(b'')
    found = find_pictures([str(tmp_path)], suffixes=('.nii', '.nii.gz'))
    assert [picture.name for picture in found] == ['a', 'b', 'c.nii', 'c.nii.gz']


@pytest.mark.parametrize('channels', [1, 2, 3, 13])
def test_view(channels):
    image = np.random.default_rng(0).normal(3000, 900, (30, 40, channels)).astype(np.float32)
    nodata = np.zeros((30, 40), bool)
    nodata[:10] = True
    image[:10] = 1e9
    shown = view(image, nodata)
    assert shown.dtype == np.uint8 and shown.shape == (30, 40, 3)
    red = image[10:, :, 0]
    low, high = np.quantile(red, [0.02, 0.98])
    expected = np.clip((red - low) / (high - low), 0, 1) * 255
    assert np.abs(shown[10:, :, 2].astype(int) - expected).max() <= 1.01
    if channels < 3:
        assert (shown == shown[..., :1]).all()
