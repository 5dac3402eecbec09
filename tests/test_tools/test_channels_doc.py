"""docs/channels.md: its commands run as they stand in an empty folder, and do what it says.

Broken files are found by the tools that the page names.
"""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import rasterio
import torch
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from PIL import Image

from locat_mm.config import load_config
from locat_mm.models import LocAtViT
from tests.support import ROOT
from tests.support.rasters import write_raster

pytestmark = pytest.mark.fields

FILE = re.compile(r'Save as `(\w+\.py)`.*?^```python\n(.*?)^```$', re.S | re.M)
COMMANDS = re.compile(r'^```bash\n(.*?)^```$', re.S | re.M)
#: Data is read in this process, for speed.
OPTIONS = [
    f'{split}_dataloader.{setting}'
    for split in ('train', 'val', 'test')
    for setting in ('num_workers=0', 'persistent_workers=False', 'pin_memory=False')
]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """The folder behind all commands of the page, and what they printed."""
    folder = tmp_path_factory.mktemp('channels')
    page = (ROOT / 'docs/channels.md').read_text()
    files = dict(FILE.findall(page))
    assert sorted(files) == ['ct.py', 'draw_example.py', 'infrared.py', 'tiles.py']
    for name, content in files.items():
        (folder / name).write_text(content)
    lines = [line for block in COMMANDS.findall(page) for line in block.splitlines()]
    assert lines.pop(0) == 'pip install rasterio nibabel' and len(lines) == 11
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(LocAtViT.ARCHS, 'tiny', dict(embed_dim=192, depth=1, num_heads=3))
        for line in lines:
            printed[line] = run(line, patch)
    return SimpleNamespace(folder=folder, printed=printed, page=page)


def run(line: str, patch) -> str:
    words = shlex.split(line)
    if words[1] == 'draw_example.py':
        runpy.run_path(words[1])
        return ''
    if words[1] == 'tools/train.py':
        words += OPTIONS
    if words[1] == 'tools/misc/check_dataset.py':
        words += ['--num-workers', '0']
    output = SimpleNamespace(text='')
    output.write = lambda text: setattr(output, 'text', output.text + text)
    output.flush = lambda: None
    patch.setattr(sys, 'stdout', output)
    DefaultScope._instance_dict.clear()
    try:
        status = runpy.run_path(str(ROOT / words[1]))['main'](words[2:])
    finally:
        patch.setattr(sys, 'stdout', sys.__stdout__)
    assert not status, output.text
    return output.text


def test_the_page_shows_what_is_printed(place):
    (found,) = (
        p for line, p in place.printed.items() if line.endswith('channel_stats.py tiles.py')
    )
    assert found in place.page
    for line, printed in place.printed.items():
        if 'check_dataset' in line:
            assert 'no problems' in printed
    assert 'pixels without data: 1536' in ''.join(place.printed.values())


def test_statistics_are_those_of_numpy(place):
    paths = sorted((place.folder / 'data/tiles/images/train').glob('*.tif'))
    pixels = []
    for path in paths:
        with rasterio.open(path) as raster:
            values = raster.read([4, 2, 1]).reshape(3, -1)
        pixels.append(values[:, (values != 0).all(axis=0)])
    pixels = np.concatenate(pixels, axis=1).astype(np.float64)
    found = json.loads((place.folder / 'infrared.json').read_text())
    np.testing.assert_allclose(found['mean'], pixels.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found['std'], pixels.std(axis=1), rtol=1e-12)
    assert found['pixels'] == pixels.shape[1] and found['images'] == 4


def test_masks_of_geotiff(place):
    for name in ('0', '1'):
        with rasterio.open(place.folder / f'data/tiles/images/val/{name}.tif') as image:
            with rasterio.open(place.folder / f'result/masks/{name}.tif') as mask:
                assert mask.transform == image.transform and mask.crs == image.crs
                assert mask.shape == image.shape and mask.nodata == 255
                values = mask.read(1)
                assert mask.colormap(1)[1] == (60, 180, 75, 255)
            empty = (image.read() == 0).any(axis=0)
        assert ((values == 255) == empty).all() and empty.any()
        assert (np.asarray(Image.open(place.folder / f'result/masks/{name}.png')) == values).all()
        assert (place.folder / f'result/overlays/{name}.jpg').is_file()
    assert not list(place.folder.rglob('*.tmp'))


def test_masks_of_nifti(place):
    image = nibabel.load(place.folder / 'data/volumes/images/val/0.nii.gz')
    mask = nibabel.load(place.folder / 'volumes/masks/0.nii.gz')
    assert (mask.affine == image.affine).all() and mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8 and set(np.unique(mask.dataobj)) <= {0, 1}
    assert mask.header.get_zooms() == image.header.get_zooms()
    assert [path.name for path in Path(place.folder, 'volumes/masks').iterdir()] == ['0.nii.gz']


@pytest.fixture
def broken(place, tmp_path, monkeypatch):
    """A copy of the folder, to break; the tools run there."""
    shutil.copytree(place.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LocAtViT.ARCHS, 'tiny', dict(embed_dim=192, depth=1, num_heads=3))
    DefaultScope._instance_dict.clear()
    return tmp_path


def main(tool: str):
    return runpy.run_path(str(ROOT / 'tools' / tool))['main']


def rewrite(path: Path, change=lambda bands: bands, **profile) -> None:
    with rasterio.open(path) as file:
        bands, old = file.read(), file.profile
    bands = change(bands)
    new = {**old, 'count': len(bands), 'dtype': bands.dtype, 'height': bands.shape[1], **profile}
    with rasterio.open(path, 'w', **new) as file:
        file.write(bands)


def problems(config: str) -> dict[str, list[str]]:
    assert main('misc/check_dataset.py')([config, '--num-workers', '0', '--out', 'r.json'])
    found = json.loads(Path('r.json').read_text())['problems']
    return {kind: [Path(n.split()[1].rstrip(':')).name for n in v] for kind, v in found.items()}


def test_broken_tiles_are_listed(broken, capsys):
    train, val = (broken / 'data/tiles/images' / split for split in ('train', 'val'))
    masks = broken / 'data/tiles/masks/train'
    rewrite(train / '0.tif', lambda bands: bands[:3])
    rewrite(train / '1.tif', lambda bands: bands * 0)
    rewrite(masks / '2.tif', crs='EPSG:32634')
    rewrite(masks / '3.tif', lambda bands: bands[:, :-1])
    rewrite(val / '0.tif', lambda b: np.where(b > 1100, np.nan, b.astype(np.float32)), nodata=None)
    (val / '1.tif').write_bytes((val / '1.tif').read_bytes()[:900])
    assert problems('infrared.py') == {
        'band missing': ['0.tif'],
        'image without data': ['1.tif'],
        'mask of another place': ['2.tif'],
        'mask of another size': ['3.tif'],
        'NaN': ['0.tif'],
        'damaged': ['1.tif'],
    }
    # Training can go on without them; a validation cannot.
    rewrite(masks / '2.tif', crs='EPSG:32633')
    skip = ['default_hooks.data_guard.on_error=skip', 'train_cfg.max_iters=3']
    arguments = ['infrared.py', '--work-dir', 'skipped', '--cfg-options', *OPTIONS, *skip]
    with pytest.raises(ValueError, match='val/0.tif|masks/val'):
        main('train.py')([*arguments, 'train_cfg.val_interval=3'])
    skipped = (broken / 'skipped/skipped_samples.txt').read_text()
    assert 'is missing' in skipped and 'is empty' in skipped and '/2.tif' not in skipped


def test_broken_tiles_do_not_stop_predictions(broken, capsys):
    folder = broken / 'data/tiles/images/val'
    rewrite(folder / '0.tif', lambda bands: bands * 0)
    rewrite(folder / '1.tif', lambda bands: bands[:2])
    shutil.copy(broken / 'data/tiles/images/train/0.tif', folder / '2.tif')
    arguments = [str(folder), '--config', 'tiles.py', '--checkpoint', 'work_dirs/tiles/iter_2.pth']
    assert main('infer.py')([*arguments, '--out', 'some', '--window', '32']) == 3
    said = [line for line in capsys.readouterr().err.splitlines() if 'FAILED: ' in line]
    assert len(said) == 2 and '0.tif is empty' in said[0] and '1.tif' in said[1]
    assert (broken / 'some/masks/2.tif').is_file() and not (broken / 'some/masks/0.tif').exists()


def test_broken_volumes_are_listed(broken):
    folder = broken / 'data/volumes'
    labels = nibabel.load(folder / 'masks/train/0.nii.gz')
    voxels = np.array(labels.dataobj)
    cut = nibabel.Nifti1Image(voxels[:-1], labels.affine)
    nibabel.save(cut, folder / 'masks/train/0.nii.gz')
    moved = np.diag([0.8, 0.8, 3.0, 1.0])
    moved[0, 3] = 1
    nibabel.save(nibabel.Nifti1Image(voxels, moved), folder / 'masks/val/0.nii.gz')
    assert problems('ct.py') == {
        'mask of another size': ['0.nii.gz'] * 3,
        'mask of another place': ['0.nii.gz'] * 3,
    }


def test_a_picture_keeps_its_place(broken):
    """Masks by a config for photographs, of a GeoTIFF of three 8-bit bands."""
    colours = np.random.default_rng(0).integers(1, 255, (3, 40, 56)).astype(np.uint8)
    colours[:, :5] = 0
    path = write_raster(broken / 'photos/town.tif', colours, nodata=0)
    config = str(ROOT / 'configs/demo/locatvit_segment.py')
    cfg = load_config(config)
    init_default_scope('mmseg')
    state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(cfg.metainfo))), 'photo.pth')
    assert (
        main('infer.py')(
            ['photos', '--config', config, '--checkpoint', 'photo.pth', '--out', 'town']
        )
        == 0
    )
    with rasterio.open(path) as image, rasterio.open('town/masks/town.tif') as mask:
        assert mask.transform == image.transform and mask.crs == image.crs
        values = mask.read(1)
    assert (values[:5] == 255).all() and (values[5:] != 255).all()
    assert (np.asarray(Image.open('town/masks/town.png')) == values).all()


def test_pictures_need_three_channels(broken):
    with pytest.raises(ValueError, match='in_channels=4.*LoadGeoTIFF'):
        main('infer.py')(
            ['data/tiles/images/val', '--config', 'tiles.py', '--checkpoint', 'x', '--out', 'y']
            + ['--cfg-options', 'test_dataloader.dataset.pipeline.0.type=LoadImageFromFile']
        )


def test_empty_sets_are_refused(broken):
    shutil.rmtree('data/tiles/images/train')
    Path('data/tiles/images/train').mkdir()
    with pytest.raises(ValueError, match='has no file'):
        main('misc/channel_stats.py')(['tiles.py'])
