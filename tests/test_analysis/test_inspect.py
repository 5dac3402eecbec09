"""tools/analysis_tools/inspect_locat.py and its figures, on configs of all families."""

import copy
import functools
import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Ellipse
from matplotlib.text import Text
from mmcv import imread, imwrite
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from locat_mm.analysis.figures import make_figure
from locat_mm.analysis.gaussians import draw_gaussians
from locat_mm.analysis.inspection import Inspection, Inspector
from locat_mm.analysis.recording import LayerRecord
from tests.support import ROOT
from tests.support.demo_models import config, weights

inspect = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'inspect_locat.py'))['main']
GAUG = {'its Gaussian', 'σ of all patches\n(√ rows · columns)', 'α of all patches'}
CLASS, PRR = 'similarity of patches to [CLS]', 'PRR: weights of'


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Images, and a config that loads another's model with random weights."""
    folder = tmp_path_factory.mktemp('inspect')
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 255, (6, 9, 3)).repeat(9, 0).repeat(9, 1).astype(np.uint8)
    imwrite(smooth[:50, :76], str(folder / 'wide.png'))
    imwrite(smooth.transpose(1, 0, 2)[:80, :32], str(folder / 'tall.png'))
    imwrite(smooth[:24, :24], str(folder / 'object.png'))
    (folder / 'text.png').write_text('no image')
    return folder


@pytest.fixture(scope='module')
def look(folder):
    """A demo config's model on an image of the folder, run once."""
    return functools.cache(
        lambda name, image: Inspector(config(name), weights(name, folder))(folder / image)
    )


def texts(figure) -> list[Text]:
    """The texts of a figure, without those at ticks."""
    ticks = {id(label) for axis in figure.findobj(Tick) for label in (axis.label1, axis.label2)}
    found = {id(t): t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()}
    return [text for key, text in found.items() if key not in ticks]


def is_legible(figure) -> bool:
    """No text runs into another, or over the edge."""
    FigureCanvasAgg(figure).draw()
    boxes = [t.get_window_extent() for t in texts(figure)]
    inside = all(
        b.x0 > -1 and b.y0 > -1 and b.x1 < figure.bbox.x1 + 1 and b.y1 < figure.bbox.y1 + 1
        for b in boxes
    )
    return inside and not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize(
    'name, has_gaug, has_class, has_prr',
    [
        ('vit_classify', False, True, False),
        ('locatvit_classify', True, True, True),
        ('locatvit_segment', True, True, False),
        ('attach/locatvit_classify', True, True, True),
        ('ablation/vit_gap_classify', False, False, False),
        ('families/locatregvit_classify', True, True, True),
        ('families/locatropevit_segment', True, True, False),
        ('families/locatjumbo_classify', True, True, True),
        ('families/locatswin_classify', True, False, True),
        ('families/swin_segment', False, False, False),
    ],
)
def test_every_family(folder, look, name, has_gaug, has_class, has_prr):
    image = 'wide.png' if name.endswith('_segment') else 'object.png'
    inspection = look(name, image)
    figure = make_figure(inspection)
    shown = {text.get_text() for text in texts(figure)}
    assert (CLASS in shown) == has_class
    assert any(text.startswith(PRR) for text in shown) == has_prr
    assert GAUG & shown == (GAUG if has_gaug else set())
    assert {f'layer {i}' for i in range(4)} <= {text.partition('\n')[0] for text in shown}
    assert len(figure.findobj(Ellipse)) == (8 if has_gaug else 0)
    np.testing.assert_array_equal(inspection.picture, imread(folder / image, channel_order='rgb'))


@pytest.mark.parametrize(
    'name, image',
    [
        ('locatvit_classify', 'object.png'),
        ('locatvit_segment', 'wide.png'),
        ('ablation/locatvit_rotated_segment', 'wide.png'),
        ('families/swin_segment', 'tall.png'),
    ],
)
def test_figures_are_legible(look, name, image):
    assert is_legible(make_figure(look(name, image)))


def test_ellipses_maps_and_marks(look):
    """Where a patch is and how far its Gaussian reaches, in the pixels of a padded picture."""
    inspection = look('locatvit_segment', 'wide.png')
    layer = inspection.layers[1]
    assert (inspection.patch_size, inspection.grid_size) == ((8, 8), (7, 10))
    x, y = inspection.point_of(6, 9)  # cut by the edges: 50×76 pixels
    assert (x, y) == (76, 52) and layer.grid_size == (7, 10)
    figure = make_figure(inspection, inspection.point_of(2, 5), [1, -1])
    sigma = layer.variance[2, 5].sqrt().numpy()
    one, two = figure.findobj(Ellipse)[:2]
    assert one.center == two.center == (44, 20)
    np.testing.assert_allclose((one.height, one.width), 2 * 8 * sigma, rtol=1e-6)
    np.testing.assert_allclose((two.height, two.width), 4 * 8 * sigma, rtol=1e-6)
    maps = [axis for axis in figure.findobj(lambda a: hasattr(a, 'get_extent'))]
    assert {tuple(image.get_extent()) for image in maps} == {(0, 76, 50, 0), (0, 80, 56, 0)}
    alpha = [image.get_array() for image in maps if image.get_cmap().name == 'cividis']
    np.testing.assert_array_equal(alpha[0], layer.alpha.numpy())
    assert 'layer 3' in {text.get_text().partition('\n')[0] for text in texts(figure)}


def test_rotated_kernels_turn_their_ellipses(folder, look):
    name = 'ablation/locatvit_rotated_segment'
    inspection = look(name, 'wide.png')
    layer = inspection.layers[1]
    figure = make_figure(inspection, inspection.point_of(2, 5), [1])
    one, _ = figure.findobj(Ellipse)
    rows, columns = layer.variance[2, 5].tolist()
    across = layer.covariance[2, 5].item()
    assert abs(across) > 1e-3
    # The points of the ellipse lie at one standard deviation: dᵀ Σ⁻¹ d = 1.
    t = np.linspace(0, 2 * np.pi, 9)
    turn = np.deg2rad(one.angle)
    x, y = one.width / 2 * np.cos(t), one.height / 2 * np.sin(t)
    d = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)]) / 8
    inverse = np.linalg.inv([[columns, across], [across, rows]])
    np.testing.assert_allclose(np.einsum('in,ij,jn->n', d, inverse, d), 1, rtol=1e-4)
    maps = [axis for axis in figure.findobj(lambda a: hasattr(a, 'get_extent'))]
    (angle,) = (image.get_array() for image in maps if image.get_cmap().name == 'twilight')
    np.testing.assert_array_equal(angle, layer.angle.numpy())
    assert 'angle of all Gaussians\n(0: along a row)' in {t.get_text() for t in texts(figure)}
    out = folder / 'rotated.png'
    assert draw_gaussians(config(name), weights(name, folder), folder / 'wide.png', out) == out


def test_stages_have_larger_patches(folder):
    grids = [(25, 13), (13, 7), (7, 4), (4, 2)]
    layers = [LayerRecord('', grid, torch.ones(1, 1, 1), torch.zeros(1, 1)) for grid in grids]
    inspection = Inspection('', np.zeros((100, 50, 3)), (4, 4), grids[0], layers)
    assert [inspection.patch_pixels(grid) for grid in grids] == [(p, p) for p in (4, 8, 16, 32)]
    assert [inspection.patch_at(layer, 49.9, 99.9) for layer in layers] == [
        *((24, 12), (12, 6), (6, 3), (3, 1))
    ]
    assert inspection.choose_layers() == [0, 1, 2, 3]
    inspection.layers = layers * 3
    assert inspection.choose_layers() == [0, 2, 4, 7, 9, 11]


def test_the_tool_writes_a_picture_each(folder, capsys):
    args = [config('vit_classify'), weights('vit_classify', folder)]
    images = [str(folder / 'wide.png'), str(folder / 'object.png')]
    inspect([*args, *images, '--point', '10', '12', '--out-dir', str(folder / 'out')])
    assert sorted(p.name for p in (folder / 'out').iterdir()) == ['object.png', 'wide.png']
    picture = imread(folder / 'out' / 'wide.png')
    assert min(picture.shape[:2]) > 500
    assert '[2/2]' in capsys.readouterr().out


def test_kernels(folder):
    out = folder / 'kernels.png'
    name = 'locatvit_segment'
    assert draw_gaussians(config(name), weights(name, folder), folder / 'wide.png', out) == out
    assert imread(out).shape[1] > 1000
    with pytest.raises(ValueError, match='the model has no GAug'):
        draw_gaussians(
            config('vit_classify'), weights('vit_classify', folder), folder / 'object.png', out
        )


@pytest.mark.parametrize(
    'args, error, message',
    [
        (['missing.png'], FileNotFoundError, 'there is no image .*missing.png'),
        (['text.png'], ValueError, 'text.png is no image that OpenCV can read'),
        (['wide.png', '--patch', '3', '10'], ValueError, r'patch \(3, 10\) is outside of its 7×10'),
        (['wide.png', '--point', '10', '50'], ValueError, r'outside of its 76×50 pixels'),
        (['wide.png', '--layers', '0', '4'], ValueError, r'layers 0..3, not \[4\]'),
        (['wide.png', 'wide.png'], SystemExit, ''),
    ],
)
def test_mistakes(folder, args, error, message):
    images = [str(folder / arg) if arg.endswith('.png') else arg for arg in args]
    given = [config('vit_classify'), weights('vit_classify', folder), *images]
    with pytest.raises(error, match=message):
        inspect([*given, '--out-dir', str(folder / 'out')])


def test_models_that_cannot_be_looked_into(folder):
    cfg = Config.fromfile(config('vit_classify'))
    cfg.model.backbone = dict(type='ResNet', depth=18)
    cfg.model.neck = dict(type='GlobalAveragePooling')
    cfg.model.head.in_channels = 512
    cfg.dump(folder / 'resnet.py')
    init_default_scope('mmpretrain')
    model = MODELS.build(copy.deepcopy(cfg.model))
    torch.save(dict(state_dict=model.state_dict()), folder / 'resnet.pth')
    with pytest.raises(ValueError, match='ResNet has no attention layer to look into'):
        Inspector(str(folder / 'resnet.py'), str(folder / 'resnet.pth'))(folder / 'object.png')
    cfg.pop('test_dataloader')
    cfg.dump(folder / 'no_test.py')
    with pytest.raises(ValueError, match='no test_dataloader with a pipeline'):
        Inspector(str(folder / 'no_test.py'), str(folder / 'resnet.pth'))
    with pytest.raises(ValueError, match='does not fit'):
        Inspector(config('vit_classify'), str(folder / 'resnet.pth'))
    name = 'locatvit_segment'
    slide = {'model.test_cfg': dict(mode='slide', crop_size=(48, 48), stride=(32, 32))}
    with pytest.raises(ValueError, match='model.test_cfg.mode=whole'):
        Inspector(config(name), weights(name, folder), slide)(folder / 'wide.png')
