"""``make demo-satellite`` from data to table and picture, on a small Earth of stripes."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import run
import steps

from tests.support import ROOT
from tests.support.fake_earth import fake_earth
from tests.support.processes import LIMIT
from tests.support.shipped import build_on_meta, load
from tests.support.workplace import Workplace


@pytest.mark.fields
def test_from_data_to_table_and_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    convert = runpy.run_path(str(ROOT / 'tools/dataset_converters/land_cover.py'))['main']
    files = fake_earth(tmp_path)
    convert(['--image', str(files['image']), '--labels', str(files['labels'])])
    # One of three models, to save time; test_builds builds the others.
    experiment = run.EXPERIMENTS['satellite']
    chosen = replace(experiment, rows=experiment.rows[-1:])
    monkeypatch.setitem(run.EXPERIMENTS, 'satellite', chosen)
    place = Workplace(tmp_path)
    started: list[str] = []

    def run_command(label: str, log: Path, command: list[str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        started.append(label)
        assert place.start(*command[1:], log=log).wait(LIMIT) == 0, log.read_text()[-3000:]

    monkeypatch.setattr(steps, 'run_command', run_command)
    run.main(['--satellite', '--smoke', '--seeds', '1'])
    printed = capsys.readouterr().out
    out = Path('work_dirs/demo_satellite_smoke')
    rows = json.loads((out / 'summary.json').read_text())
    assert rows[0] == {'name': 'nearest colour', 'miou': 100.0}
    assert rows[1]['name'] == 'LocAtViT'
    assert {'top1', 'miou', 'miou_std', 'knn', 'in_context', 'params', 'seeds'} <= set(rows[1])
    assert all(row['name'] in printed for row in rows)
    for name in ('land_cover.png', 'gaussians.png', 'look_inside.html'):
        assert (out / name).stat().st_size > 10_000, name
    assert len(started) == 6

    monkeypatch.setattr(run, 'draw', lambda *args: None)
    monkeypatch.setattr(run, 'draw_gaussians_of', lambda *args: None)
    monkeypatch.setattr(run, 'write_demo_page', lambda *args: None)
    monkeypatch.setattr(run, 'median_scenes', lambda *args: None)
    run.main(['--satellite', '--smoke', '--seeds', '1'])
    assert len(started) == 6  # a second call finds all of it


def test_the_demo_of_digits_keeps_its_place():
    experiments = run.EXPERIMENTS
    names = ('demo', 'ablation', 'grid', 'growth', 'families', 'attach')
    assert {name: e.data.name for name, e in experiments.items() if name != 'satellite'} == {
        name: 'digit_scenes' for name in names
    }
    row = experiments['ablation'].rows[1]
    assert steps.feature_configs(row, experiments['ablation'].data) == [
        ROOT / 'configs/demo/ablation/vit_gaug_classify.py',
        ROOT / 'configs/demo/ablation/in_context_vit_gaug.py',
    ]


@pytest.mark.parametrize('name', ['vit', 'vit_fixed', 'locatvit'])
def test_in_context_reads_training_scenes_as_the_bank(name):
    cfg = load(f'land_cover/in_context_{name}.py')
    folders = [
        loader.dataset.data_prefix.seg_map_path
        for loader in (cfg.test_cfg.bank_dataloader, cfg.test_dataloader)
    ]
    assert folders == ['annotations/training', 'annotations/validation']
    plain = load(f'land_cover/{name}_segment.py').model.backbone
    assert cfg.model.backbone == plain | {'init_cfg': cfg.model.backbone.init_cfg}
    assert build_on_meta(cfg).num_classes == 7
