"""What the app answers to uploads, without its user interface."""

import shutil

import numpy as np
import pytest
from mmcv import imread, imwrite
from PIL import Image

from locat_mm.analysis.inspection import Inspector
from locat_mm.cli.app import App
from tests.support.demo_models import config, weights


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('app')
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 255, (6, 8, 3)).repeat(9, 0).repeat(9, 1).astype(np.uint8)
        imwrite(pixels, str(folder / f'{number}.png'))
        mask = np.zeros((54, 72), np.uint8)
        mask[:, 30 + number :] = 1
        (folder / 'masks').mkdir(exist_ok=True)
        imwrite(mask, str(folder / 'masks' / f'{number}.png'))
    (folder / 'text.png').write_text('no image')
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'cut.png').write_bytes((folder / '0.png').read_bytes()[:-60])
    Image.new('L', (3000, 2000)).save(folder / 'large.png')
    Image.new('L', (20000, 20000)).save(folder / 'bomb.png')
    Image.new('RGB', (800, 40)).save(folder / 'strip.png')
    return folder


@pytest.fixture(scope='module')
def app(folder):
    name = 'locatvit_segment'
    given = config(name), weights(name, folder), folder / 'pages'
    (folder / 'pages').mkdir()
    return App(*given, most_megapixels=5, most_patches=400)


def test_a_photo_gives_its_map_and_page(app, folder):
    overlay, page = app.look(str(folder / '0.png'))
    inspector = Inspector(app.config, app.checkpoint)
    assert inspector.patch_size == (8, 8)
    mask = inspector(folder / '0.png').segmentation
    height, width = mask.shape
    scale = overlay.shape[0] // height
    picture = imread(folder / '0.png', channel_order='rgb').astype(float)
    colours = np.asarray(app.palette)[mask]
    expected = (picture + colours) / 2
    middle = overlay[scale // 2 :: scale, scale // 2 : scale * width : scale][:height]
    inside = np.all(middle != 255, axis=-1)  # no line between classes
    assert abs(middle - expected)[inside].mean() < 12  # the overlay is enlarged smoothly
    assert page.parent == app.folder and '"name": "0.png"' in page.read_text()
    assert app.look(str(folder / '1.png'))[1] != page


@pytest.mark.parametrize(
    'upload, message',
    [
        (None, 'There is no photo'),
        ('text.png', 'text.png cannot be decoded'),
        ('empty.jpg', 'empty.jpg is empty'),
        ('cut.png', 'cut.png'),
        ('large.png', 'large.png has 6 megapixels, and at most 5 are taken'),
        ('bomb.png', 'bomb.png has too many megapixels, and at most 5'),
        ('strip.png', '800×40 pixels, 500 patches, and at most 400'),
    ],
)
def test_bad_uploads_are_told_and_the_next_one_works(app, folder, upload, message):
    with pytest.raises(ValueError, match=message) as error:
        app.look(upload and str(folder / upload))
    assert str(folder) not in str(error.value)
    app.look(str(folder / '0.png'))


def test_examples_segment_a_photo(app, folder):
    images = [str(folder / f'{number}.png') for number in range(2)]
    masks = [str(folder / 'masks' / f'{number}.png') for number in range(2)]
    result = app.segment(images, masks, images[0])
    assert result.dtype == np.uint8 and result.shape[1] > result.shape[0]
    with pytest.raises(ValueError, match='Three things are needed'):
        app.segment(images, None, images[0])
    with pytest.raises(ValueError, match='example images have no mask in masks'):
        app.segment([*images, str(folder / '2.png')], masks, images[0])
    shutil.copy(folder / 'large.png', folder / 'masks' / 'odd.png')
    shutil.copy(folder / '0.png', folder / 'odd.png')
    with pytest.raises(ValueError, match='masks/odd.png has 3000×2000 pixels'):
        app.segment(
            [*images, str(folder / 'odd.png')], [*masks, str(folder / 'masks/odd.png')], images[0]
        )
    app.segment(images, masks, str(folder / '2.png'))


def test_a_classifier_has_a_page_and_no_map(folder):
    name = 'locatvit_classify'
    app = App(config(name), weights(name, folder), folder / 'pages')
    picture, page = app.look(str(folder / '0.png'))
    np.testing.assert_array_equal(picture, imread(folder / '0.png', channel_order='rgb'))
    assert 'refinement' in page.read_text()
