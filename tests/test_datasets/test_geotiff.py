"""GeoTIFF images and masks against rasterio and numpy; bad files are named."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from locat_mm.datasets import BadSampleError, LoadGeoTIFF, LoadGeoTIFFAnnotations
from locat_mm.registry import TRANSFORMS
from tests.support.rasters import TRANSFORM, sample, write_raster

#: Another grid: shifted by half a pixel.
SHIFTED = from_origin(400005, 5200000, 10, 10)


@pytest.fixture
def bands():
    """Four bands of 16 bits, with nodata 0 in a corner, and in one band of one pixel."""
    values = np.random.default_rng(0).integers(1, 12000, (4, 12, 15)).astype(np.uint16)
    values[:, :3, :4] = 0
    values[2, 8, 9] = 0
    return values


@pytest.fixture
def image(tmp_path, bands):
    return write_raster(tmp_path / 'image.tif', bands, nodata=0)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 3, (12, 15)).astype(np.uint8)


def load(image, mask=None, annotations=None, **options):
    data = LoadGeoTIFF(**options)(sample(image, mask))
    return data if mask is None else (annotations or LoadGeoTIFFAnnotations())(data)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
def test_values_are_rasterios(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 120, (13, 6, 7)).astype(dtype)
    path = write_raster(tmp_path / 'image.tif', values)
    for chosen in (None, [4, 3, 2], [13], [2, 2]):
        data = load(path, bands=chosen)
        with rasterio.open(path) as raster:
            expected = raster.read(chosen).transpose(1, 2, 0)
        assert data['img'].dtype == np.float32 and 'nodata' not in data
        assert (data['img'] == expected).all()
        assert data['img_shape'] == data['ori_shape'] == (6, 7)


def test_nodata(image, bands, labels, tmp_path):
    mask = write_raster(tmp_path / 'mask.tif', labels)
    data = load(image, mask, bands=[3, 1])
    empty = bands[[2, 0]] == 0
    assert (data['nodata'] == empty.any(axis=0)).all()
    for channel, band in enumerate((2, 0)):
        valid = bands[band] != 0
        assert (data['img'][..., channel][valid] == bands[band][valid]).all()
        mean = np.float32(bands[band][valid].mean(dtype=np.float64))
        np.testing.assert_allclose(data['img'][..., channel][~valid], mean, rtol=1e-6)
    assert data['gt_seg_map'].dtype == np.uint8
    assert (data['gt_seg_map'] == np.where(empty.any(axis=0), 255, labels)).all()
    # Band 1 alone has data at the single pixel.
    assert load(image, mask, bands=[1])['gt_seg_map'][8, 9] == labels[8, 9]
    filled = load(image, bands=[3, 1], fill=[7, 9])['img']
    assert (filled[0, 0] == [7, 9]).all() and filled[8, 9, 0] == 7 and filled[8, 9, 1] != 9


def test_zero_label_and_subsets(image, labels, tmp_path):
    mask = write_raster(tmp_path / 'mask.tif', labels)
    data = LoadGeoTIFF()(sample(image, mask, reduce_zero_label=True))
    empty = data['nodata']
    found = LoadGeoTIFFAnnotations()(data)['gt_seg_map']
    assert (found[~empty] == np.array([255, 0, 1])[labels[~empty]]).all()
    data = LoadGeoTIFF()(sample(image, mask, label_map={0: 1, 1: 255, 2: 0}))
    found = LoadGeoTIFFAnnotations()(data)['gt_seg_map']
    assert (found[~empty] == np.array([1, 255, 0])[labels[~empty]]).all()


def test_masks_of_other_kinds(image, labels, tmp_path):
    """Nodata of a mask is no label; a PNG has no georeference, and needs none."""
    mask = write_raster(tmp_path / 'mask.tif', labels.astype(np.int16), nodata=2)
    empty = load(image)['nodata']
    found = load(image, mask)['gt_seg_map']
    assert (found == np.where(empty | (labels == 2), 255, labels)).all()
    png = write_raster(tmp_path / 'mask.png', labels, place=False, driver='PNG')
    assert (load(image, png)['gt_seg_map'] == np.where(empty, 255, labels)).all()


def test_alpha_is_a_band(tmp_path):
    """GDAL marks the fourth of four 8-bit bands as alpha: near infrared of 0 is no nodata."""
    values = np.random.default_rng(0).integers(0, 3, (4, 8, 8)).astype(np.uint8)
    path = write_raster(tmp_path / 'image.tif', values)
    with rasterio.open(path) as raster:
        assert raster.colorinterp[3] == ColorInterp.alpha and (raster.dataset_mask() == 0).any()
    data = load(path)
    assert 'nodata' not in data and (data['img'] == values.transpose(1, 2, 0)).all()


def test_nan(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 6, 7)).astype(np.float32)
    values[1, 2, 3] = np.nan
    values[0, 0, 0] = np.inf
    path = write_raster(tmp_path / 'image.tif', values)
    with pytest.raises(BadSampleError, match=r"image.tif: band 1 has NaN.* 1 pixels.*nan='nodata'"):
        load(path)
    data = load(path, nan='nodata')
    assert data['nodata'].sum() == 2 and np.isfinite(data['img']).all()
    declared = write_raster(tmp_path / 'declared.tif', values[1:], nodata=np.nan)
    assert load(declared)['nodata'].sum() == 1


def bad_band(tmp_path, bands, labels):
    return LoadGeoTIFF(bands=[4, 5]), write_raster(tmp_path / 'bad.tif', bands), None


def bad_empty(tmp_path, bands, labels):
    return LoadGeoTIFF(), write_raster(tmp_path / 'bad.tif', bands * 0, nodata=0), None


def bad_nodata(tmp_path, bands, labels):
    return LoadGeoTIFF(nodata='error'), write_raster(tmp_path / 'bad.tif', bands, nodata=0), None


def bad_cut(tmp_path, bands, labels):
    path = write_raster(tmp_path / 'bad.tif', bands)
    path.write_bytes(path.read_bytes()[:600])
    return LoadGeoTIFF(), path, None


def bad_file(tmp_path, bands, labels):
    path = tmp_path / 'bad.tif'
    path.write_text('no raster')
    return LoadGeoTIFF(), path, None


def bad_missing(tmp_path, bands, labels):
    return LoadGeoTIFF(), tmp_path / 'bad.tif', None


def bad_size(tmp_path, bands, labels):
    image = write_raster(tmp_path / 'image.tif', bands)
    return LoadGeoTIFF(), image, write_raster(tmp_path / 'bad.tif', labels[:-1])


def bad_crs(tmp_path, bands, labels):
    image = write_raster(tmp_path / 'image.tif', bands)
    return LoadGeoTIFF(), image, write_raster(tmp_path / 'bad.tif', labels, crs='EPSG:32633')


def bad_transform(tmp_path, bands, labels):
    image = write_raster(tmp_path / 'image.tif', bands)
    return LoadGeoTIFF(), image, write_raster(tmp_path / 'bad.tif', labels, transform=SHIFTED)


def bad_label(tmp_path, bands, labels):
    image = write_raster(tmp_path / 'image.tif', bands)
    return LoadGeoTIFF(), image, write_raster(tmp_path / 'bad.tif', labels.astype(np.int16) - 1)


def bad_fraction(tmp_path, bands, labels):
    image = write_raster(tmp_path / 'image.tif', bands)
    return LoadGeoTIFF(), image, write_raster(tmp_path / 'bad.tif', labels / np.float32(2))


@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (bad_band, 'has 4 bands: band 5 of'),
        (bad_empty, 'is empty: each of its 15×12 pixels'),
        (bad_nodata, 'has no data in 13 pixels'),
        (bad_cut, 'cannot be read by rasterio'),
        (bad_file, 'cannot be read by rasterio: .*not recognized'),
        (bad_missing, 'cannot be read by rasterio: .*No such file'),
        (bad_size, r'shape \(11, 15\), its image .*image.tif \(12, 15\)'),
        (bad_crs, 'has CRS EPSG:32633 instead of EPSG:32632, which its image .*image.tif has'),
        (bad_transform, r'has transform \(10.0, 0.0, 400005.0.*image.tif'),
        (bad_label, 'the labels are from -1 to 1'),
        (bad_fraction, 'fractions'),
    ],
)
def test_bad_files_are_named(make, said, tmp_path, bands, labels):
    loader, image, mask = make(tmp_path, bands, labels)
    with pytest.raises(BadSampleError, match=rf'bad.tif.*{said}'):
        data = loader(sample(image, mask))
        LoadGeoTIFFAnnotations()(data)


def test_rounding_of_a_transform_is_allowed(image, labels, tmp_path):
    near = from_origin(TRANSFORM.c + 1e-4, TRANSFORM.f, 10 + 1e-7, 10)
    assert load(image, write_raster(tmp_path / 'mask.tif', labels, transform=near))


def test_arguments():
    for wrong in (dict(bands=[]), dict(bands=[0]), dict(nan='skip'), dict(nodata='drop')):
        with pytest.raises(ValueError):
            LoadGeoTIFF(**wrong)
    assert 'bands=[2]' in repr(TRANSFORMS.build(dict(type='LoadGeoTIFF', bands=[2])))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'rasterio', None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install rasterio .*\[satellite\]'):
        LoadGeoTIFF()
