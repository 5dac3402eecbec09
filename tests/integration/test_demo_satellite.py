"""``make demo-satellite`` from data to table and picture, on a small Earth of stripes."""

import json
import runpy
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.fake_earth import fake_earth
from tests.support.processes import LIMIT
from tests.support.workplace import Workplace


@pytest.fixture
def demo(monkeypatch):
    """tools/demo, importable as its scripts import each other."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'demo'))
    import run

    return run


def test_from_data_to_table_and_picture(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    convert = runpy.run_path(str(ROOT / 'tools/dataset_converters/land_cover.py'))['main']
    files = fake_earth(tmp_path)
    convert(['--image', str(files['image']), '--labels', str(files['labels'])])
    import steps

    place = Workplace(tmp_path)
    started: list[str] = []

    def run_command(label: str, log: Path, command: list[str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        started.append(label)
        assert place.start(*command[1:], log=log).wait(LIMIT) == 0, log.read_text()[-3000:]

    monkeypatch.setattr(steps, 'run_command', run_command)
    demo.main(['--satellite', '--smoke', '--seeds', '1'])
    printed = capsys.readouterr().out
    out = Path('work_dirs/demo_satellite_smoke')
    rows = json.loads((out / 'summary.json').read_text())
    assert [row['name'] for row in rows] == [
        *('nearest colour', 'ViT', 'ViT + fixed Gaussian', 'LocAtViT')
    ]
    assert rows[0]['miou'] == 100.0 and 'top1' not in rows[0]
    for row in rows[1:]:
        assert {'top1', 'miou', 'knn', 'in_context', 'params', 'miou_std'} <= set(row)
        assert row['name'] in printed
    # The fixed Gaussian has ViT's own weights, so nothing is trained but its decoder.
    assert rows[1]['params'] == rows[2]['params'] < rows[3]['params']
    assert 'ViT + fixed Gaussian, seed 0, classify' not in started
    for name in ('land_cover.png', 'gaussians.png', 'look_inside.html'):
        assert (out / name).stat().st_size > 10_000, name

    started.clear()  # a second call finds all of it
    demo.main(['--satellite', '--smoke', '--seeds', '1'])
    assert not started


def test_the_demo_of_digits_keeps_its_place(demo):
    experiments = demo.EXPERIMENTS
    assert {name: e.data.name for name, e in experiments.items() if name != 'satellite'} == {
        name: 'digit_scenes' for name in ('demo', 'ablation', 'families', 'attach')
    }
    row = experiments['ablation'].rows[1]
    import steps

    assert steps.feature_configs(row, experiments['ablation'].data) == [
        ROOT / 'configs/demo/ablation/vit_gaug_classify.py',
        ROOT / 'configs/demo/ablation/in_context_vit_gaug.py',
    ]
