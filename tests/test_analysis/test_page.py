"""The content of a page, decoded as the page decodes it, against what was recorded."""

import base64
import json
import re
import runpy
import zlib

import numpy as np
import pytest
import torch
from mmcv import imwrite

import locat_mm
from locat_mm.analysis import Recorder
from locat_mm.analysis.inspection import Inspection
from locat_mm.analysis.page import Subject, gather, refresh_page
from locat_mm.analysis.page.encoding import quantise_features, quantise_rows
from locat_mm.analysis.page.gathering import FORMAT
from tests.support import ROOT
from tests.support.backbones import build
from tests.support.demo_models import config, weights
from tests.support.hosts import HOSTS, image_size
from tests.support.hosts import build as build_host

inspect = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'inspect_locat.py'))['main']


def look(model, size=(24, 40), name='a.png', patch=(8, 8)) -> Inspection:
    with Recorder(model, 10**6, features=True) as recorder, torch.no_grad():
        model(torch.randn(1, 3, *size))
    picture = np.zeros((*size, 3), np.uint8)
    return Inspection(name, picture, patch, recorder.grid_size, recorder.records())


def array(texts, number, dtype, shape) -> np.ndarray:
    content = zlib.decompress(base64.b64decode(texts[number]))
    return np.frombuffer(content, dtype).reshape(shape)


def attention(layer, texts, head, patch) -> np.ndarray:
    """What the page draws for a patch: head 0 is the mean."""
    shape = layer['heads'] + 1, layer['windows'], layer['tokens']
    codes = array(texts, layer['attention'], np.uint8, (*shape, layer['tokens']))
    scale = array(texts, layer['scale'], '<f4', shape)
    patches = np.arange(layer['tokens'])[None]
    if 'patches' in layer:
        patches = array(texts, layer['patches'], '<i4', shape[1:])
    window, token = np.argwhere(patches == patch)[0]
    values = np.full(np.prod(layer['grid']), np.nan)
    inside = patches[window] >= 0
    row = scale[head, window, token] * codes[head, window, token].astype(float) ** 2
    values[patches[window][inside]] = row[inside]
    return values.reshape(layer['grid'])


def check(record, layer, texts):
    """Attention of some patches and all numbers of a layer are those of its record."""
    height, width = record.grid_size
    for patch in (0, height * width // 2, height * width - 1):
        expected = record.attention_of(patch // width, patch % width).numpy()
        error = layer['attentionError'] * (1 + 1e-3) + 1e-7
        found = attention(layer, texts, 0, patch)
        np.testing.assert_allclose(found, expected, rtol=0, atol=error)
        if layer['heads']:
            heads = [attention(layer, texts, 1 + i, patch) for i in range(layer['heads'])]
            np.testing.assert_allclose(np.mean(heads, 0), expected, rtol=0, atol=2 * error)
        assert error < 0.004 * np.nanmax(record.head_attention)
    if record.variance is not None:
        gaussian = array(texts, layer['gaussian'], '<f4', (layer['heads'] + 1, height, width, 3))
        np.testing.assert_array_equal(gaussian[0, ..., :2], record.variance)
        np.testing.assert_array_equal(gaussian[0, ..., 2], record.alpha)
        np.testing.assert_array_equal(gaussian[1:, ..., 2], record.head_alpha)
    if record.similarity is not None:
        found = array(texts, layer['similarity'], '<f4', (height, width))
        np.testing.assert_array_equal(found, record.similarity)
    coordinates = array(texts, layer['features'], np.int8, (height * width, layer['rank']))
    coordinates = coordinates * array(texts, layer['featureScale'], '<f4', layer['rank'])
    unit = record.features.flatten(0, 1).double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    error = layer['cosineError'] + 1e-5
    np.testing.assert_allclose(coordinates @ coordinates.T, unit @ unit.T, rtol=0, atol=error)
    assert error < 0.03


@pytest.mark.parametrize('family', ['vit', 'regvit', 'ropevit', 'jumbo', 'swin'])
@pytest.mark.parametrize('gaug', [True, False], ids=['gaug', 'plain'])
def test_every_family(family, gaug):
    inspection = look(build(family, gaug=gaug), patch=(4, 4) if family == 'swin' else (8, 8))
    data, texts = gather([Subject('model', [inspection])])
    (view,) = data['images'][0]['views']
    for record, layer in zip(inspection.layers, view['layers'], strict=True):
        assert (layer['windows'] > 1) == (family == 'swin')
        assert ('gaussian' in layer) == gaug
        check(record, layer, texts)


@pytest.mark.parametrize('name', ['timm-dinov3', 'mmpretrain-swin', 'mmpretrain-sam', 'mmseg-vit'])
def test_attached_hosts(name):
    assert name in HOSTS
    host = build_host(name)
    locat_mm.attach(host)
    inspection = look(host, image_size(name), patch=(4, 4) if 'swin' in name else (16, 16))
    data, texts = gather([Subject('host', [inspection])])
    for record, layer in zip(
        inspection.layers, data['images'][0]['views'][0]['layers'], strict=True
    ):
        check(record, layer, texts)


def test_two_models_share_colours():
    """The first principal components of both models' features, each around its mean."""
    seen = [look(build('vit')), look(build('vit', gaug=False))]
    data, texts = gather([Subject(name, [one]) for name, one in zip('AB', seen, strict=True)])
    image = data['images'][0]
    assert image['sharedColours']
    colours = np.concatenate(
        [array(texts, v['layers'][1]['colours'], np.uint8, (15, 3)) for v in image['views']]
    ).astype(float)
    features = []
    for one in seen:
        unit = one.layers[1].features.flatten(0, 1).double().numpy()
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        features.append(unit - unit.mean(0))
    scores = np.linalg.svd(np.concatenate(features), full_matrices=False)
    scores = scores[0][:, :3] * scores[1][:3]
    for component in range(3):
        correlation = np.corrcoef(scores[:, component], colours[:, component])[0, 1]
        assert abs(correlation) > 0.99
    assert colours.min() == 0 and colours.max() == 255
    other = gather([Subject('A', [seen[0]]), Subject('B', [look(build('swin'))])])[0]
    assert not other['images'][0]['sharedColours']


def test_a_correlation_is_passed_on():
    inspection = look(build('vit'))
    layer = inspection.layers[0]
    layer.head_correlation = torch.linspace(-0.9, 0.9, 45).view(3, 3, 5)
    covariances = layer.head_correlation * layer.head_variance.prod(-1).sqrt()
    layer.covariance = covariances.mean(0)
    data, texts = gather([Subject('rotated', [inspection])])
    first, second = data['images'][0]['views'][0]['layers']
    assert first['correlation'] and not second['correlation']
    found = array(texts, first['gaussian'], '<f4', (4, 3, 5, 4))
    np.testing.assert_array_equal(found[0, ..., 3], layer.correlation)
    np.testing.assert_array_equal(found[1:, ..., 3], layer.head_correlation)


def test_rows_are_exact_to_half_a_step():
    rows = torch.rand(50, 200, dtype=torch.float64).pow(8).float()
    codes, scale, error = quantise_rows(rows)
    found = codes.astype(float) ** 2 * scale[:, None]
    peak = rows.double().amax(-1, keepdim=True).numpy()
    bound = np.sqrt(rows.double().numpy() * peak) / 255 + peak / (4 * 255**2)
    assert (abs(found - rows.numpy()) <= bound * (1 + 1e-5)).all()
    assert error == pytest.approx(abs(found - rows.numpy()).max(), rel=1e-4)
    assert quantise_rows(torch.zeros(2, 3))[2] == 0


def test_few_components_where_they_suffice():
    torch.manual_seed(1)
    features = torch.randn(100, 5) @ torch.randn(5, 64)
    codes, _, error = quantise_features(features)
    assert codes.shape == (100, 16) and error < 0.02


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    rng = np.random.default_rng(0)
    for name in ('a', 'b'):
        pixels = rng.integers(0, 255, (6, 8, 3)).repeat(9, 0).repeat(9, 1).astype(np.uint8)
        imwrite(pixels, str(folder / f'{name}.png'))
    return folder


def test_the_tool_writes_one_file(folder):
    images = [str(folder / f'{name}.png') for name in ('a', 'b')]
    first, second = (
        (config(name), weights(name, folder)) for name in ('vit_segment', 'locatvit_segment')
    )
    out = folder / 'out' / 'page.html'
    inspect([*first, *images, '--html', str(out), '--compare', *second, '--names', 'A</b>', 'B'])
    text = out.read_text()
    assert sorted(path.name for path in out.parent.iterdir()) == ['page.html']
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and '@import' not in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [model['name'] for model in data['models']] == ['A</b>', 'B']
    assert [image['name'] for image in data['images']] == ['a.png', 'b.png']
    assert len(data['models'][0]['classes']) == len(data['models'][0]['palette']) == 11
    assert all('segmentation' in view for image in data['images'] for view in image['views'])
    assert refresh_page(out) == text


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--html', 'x.html', '--patch', '1', '1'], '--patch is for figures, and not for --html'),
        (['--compare', 'a', 'b'], '--compare is for a page: give --html OUT.html'),
        (['--html', 'x.html', '--names', 'A', 'B'], '--names needs 1 different names, got A B'),
    ],
)
def test_mistakes(folder, capsys, arguments, message):
    with pytest.raises(SystemExit):
        inspect(['config', 'checkpoint', str(folder / 'a.png'), *arguments])
    assert message in capsys.readouterr().err


def test_models_must_have_seen_the_same_images():
    seen = [Subject(name, [look(build('vit'), name=name)]) for name in ('a', 'b')]
    with pytest.raises(ValueError, match='must have seen the same images'):
        gather(seen)
    with pytest.raises(ValueError, match='is no page that inspect_locat.py'):
        refresh_page(ROOT / 'README.md')


def test_the_page_of_the_site_has_todays_format():
    text = (ROOT / 'docs' / '_site' / 'look_inside.html').read_text()
    assert f'"format": {FORMAT},' in text and len(text) < 500_000
