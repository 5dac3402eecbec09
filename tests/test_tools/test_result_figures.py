"""The tables and figures of make demo-grid and make demo-growth, held to sums written out."""

import json
import runpy

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import result_figures
import summaries

from tests.support import ROOT

results = runpy.run_path(str(ROOT / 'tools' / 'misc' / 'results.py'))
COARSE = {'ViT': [20.0, 22.0], 'GAug': [1.0, 2.0], 'LocAtViT': [23.0, 24.0]}
FINE = {'ViT': [30.0, 31.0], 'LocAtViT': [36.0, 33.0]}
#: (width, images) -> linear mIoU of ViT, of LocAtViT
SIZES = {
    (128, 1000): ([40.0, 44.0], [43.0, 48.0]),
    (64, 1000): ([20.0, 21.0], [24.0, 23.0]),
    (64, 500): ([10.0, 12.0], [11.0, 16.0]),
}


def summary(values: dict[str, list[float]], params: int = 0) -> dict:
    rows = [
        dict(name=name, params=params, runs=[dict(miou=v, in_context=v / 2) for v in found])
        for name, found in values.items()
    ]
    return dict(about={}, rows=rows)


def growth() -> dict:
    rows = []
    for (width, images), pair in SIZES.items():
        names = [f'{model}, width {width}, {images} images' for model in ('ViT', 'LocAtViT')]
        rows += summary(dict(zip(names, pair, strict=True)), params=width * 1000)['rows']
    return dict(about={}, rows=rows)


@pytest.fixture
def folder(tmp_path):
    for name, content in dict(
        ablation=summary(COARSE), grid=summary(FINE), growth=growth()
    ).items():
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    yield tmp_path
    plt.close('all')


def drawn(axis) -> list[tuple[list, list]]:
    """Places and values of all lines and groups of points, without the line at 0."""
    lines = [line for line in axis.get_lines() if set(line.get_ydata()) != {0}]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def test_gains_are_locatvit_minus_vit_seed_by_seed():
    header, *rows = results['gain_table'](growth())
    metrics = ['linear mIoU (%)', 'in-context mIoU (%)']
    assert header == ['width', 'parameters of ViT', 'images', *metrics, 'seeds']
    # Of two seeds, a resample has the lower, the mean or the higher gain.
    assert rows == [
        ['64', '64,000', '500', '+2.50 [+1.00, +4.00]', '+1.25 [+0.50, +2.00]', '2'],
        ['64', '64,000', '1,000', '+3.00 [+2.00, +4.00]', '+1.50 [+1.00, +2.00]', '2'],
        ['128', '128,000', '1,000', '+3.50 [+3.00, +4.00]', '+1.75 [+1.50, +2.00]', '2'],
    ]


def test_the_grid_has_the_models_of_both_summaries(folder):
    figure = result_figures.draw_grid(folder)
    for axis, scale in zip(figure.axes, (1, 0.5), strict=True):
        (places, means), (_, at_6), (_, at_12), *others = drawn(axis)
        np.testing.assert_allclose(places, [6, 12], rtol=0.03)
        assert means == [21.0 * scale, 30.5 * scale]
        assert at_6 == [20.0 * scale, 22.0 * scale] and at_12 == [30.0 * scale, 31.0 * scale]
        assert others[0][1] == [23.5 * scale, 34.5 * scale] and len(others) == 3
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ['6', '12']
        assert axis.get_ylabel().endswith('mIoU (%)') and 'patches' in axis.get_xlabel()
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ['ViT', 'LocAtViT']


def test_growth_has_one_panel_for_parameters_and_one_for_images(folder):
    left, right = result_figures.draw_growth(folder).axes
    assert drawn(left) == [
        ([64_000, 128_000], [3.0, 3.5]),
        ([64_000, 64_000], [4.0, 2.0]),
        ([128_000, 128_000], [3.0, 4.0]),
    ]
    assert drawn(right) == [
        ([500, 1000], [2.5, 3.0]),
        ([500, 500], [1.0, 4.0]),
        ([1000, 1000], [4.0, 2.0]),
    ]
    assert [tick.get_text() for tick in right.get_xticklabels()] == ['500', '1,000']
    assert left.get_xlabel() == 'parameters of ViT (millions), 1,000 images'
    assert right.get_xlabel() == 'images in pretraining, width 64'


def test_figures_are_drawn_beside_the_summaries_that_exist(tmp_path, folder, capsys):
    (folder / 'growth.json').unlink()
    page = folder.with_suffix('.md')
    page.write_text('<!-- results: grid quality -->\n<!-- end -->\n')
    results['main'](['--page', str(page), '--write', '--figures'])
    printed = capsys.readouterr().out
    assert f'{folder / "grid.png"}: drawn' in printed
    assert f'{folder / "growth.png"}: no growth.json to draw it from' in printed
    assert not (folder / 'growth.png').exists()
    picture = cv2.imread(str(folder / 'grid.png'))
    assert picture.shape[1] == 1200 and picture.std() > 10


def test_rows_that_are_no_pair_are_named():
    alone = summary({'ViT, width 64, 500 images': [1.0]})
    with pytest.raises(ValueError, match='only one of ViT and LocAtViT has width 64, 500 images'):
        summaries.pairs_of(alone)
    with pytest.raises(ValueError, match="'ViT' is not .MODEL, width WIDTH, COUNT images"):
        summaries.pairs_of(summary({'ViT': [1.0]}))
