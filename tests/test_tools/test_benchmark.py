"""tools/analysis_tools/benchmark.py: its wiring and its errors; not its numbers."""

import json
import runpy

import numpy as np
import pytest
import torch

from locat_mm.config import load_config
from locat_mm.models.building import build_model
from tests.support import ROOT, demo_config

benchmark = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'benchmark.py'))['main']
#: Short, and in this process.
FEW = ['--iterations', '8', '--log-interval', '4', '--cfg-options']
FEW += ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']


def save(config: str, path) -> str:
    """A checkpoint of the config's model with random weights."""
    torch.save({'state_dict': build_model(load_config(config)).state_dict()}, path)
    return str(path)


@pytest.mark.parametrize(
    ('name', 'part', 'batch_size'),
    [('locatvit_classify', 'objects', 16), ('locatvit_segment', 'scenes', 1)],
    ids=['mmpretrain', 'mmseg'],
)
def test_images_per_second_of_a_demo(workplace, tmp_path, capsys, name, part, batch_size):
    config = str(demo_config(name))
    checkpoint = save(config, tmp_path / 'random.pth')
    data = f'test_dataloader.dataset.data_root={workplace.folder}/data/digit_scenes/{part}'
    settings = ['--work-dir', str(tmp_path / 'work'), '--batch-size', str(batch_size)]
    benchmark([config, checkpoint, *settings, '--repeat-times', '2', *FEW, data])
    (out,) = (tmp_path / 'work').glob('fps_*.json')
    found = json.loads(out.read_text())
    rates = [found['overall_fps_1'], found['overall_fps_2']]
    assert min(rates) > 0
    assert found['average_fps'] == pytest.approx(np.mean(rates), abs=0.01)
    # The runs are rounded to 0.01, which moves their variance by 0.01 times their distance.
    assert found['fps_variance'] == pytest.approx(np.var(rates), abs=0.01 + 0.01 * np.ptp(rates))
    assert (found['batch_size'], found['checkpoint']) == (batch_size, checkpoint)
    printed = capsys.readouterr().out
    # Batch 4 is not timed yet; 8 is.
    assert printed.count('[8/8]') == 2 and '[4/8]' not in printed and str(out) in printed


def test_the_checkpoints_weights_are_the_ones_that_run(workplace, tmp_path, monkeypatch):
    config = str(demo_config('vit_classify'))
    state = build_model(load_config(config)).state_dict()
    state['head.fc.bias'] = torch.arange(10.0)
    torch.save(state, tmp_path / 'marked.pth')
    seen = []
    monkeypatch.setitem(
        benchmark.__wrapped__.__globals__, 'measure', lambda *args: seen.append(args) or 1.0
    )
    data = f'test_dataloader.dataset.data_root={workplace.folder}/data/digit_scenes/objects'
    work_dir = ['--work-dir', str(tmp_path)]
    benchmark([config, str(tmp_path / 'marked.pth'), *work_dir, '--cfg-options', data])
    benchmark([config, *work_dir, '--cfg-options', data])
    marked, fresh = (args[0] for args in seen)
    assert not marked.training and marked.head.fc.bias.tolist() == list(range(10))
    assert fresh.head.fc.bias.tolist() != list(range(10))


def test_bad_input_is_one_clear_error(workplace, tmp_path, capsys):
    config = str(demo_config('vit_classify'))
    other = save(str(demo_config('locatvit_classify')), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='other.pth does not fit ImageClassifier'):
        benchmark([config, other])
    with pytest.raises(FileNotFoundError, match='none.pth'):
        benchmark([config, str(tmp_path / 'none.pth')])
    with pytest.raises(FileNotFoundError, match='none.py'):
        benchmark([str(tmp_path / 'none.py')])
    part = str(ROOT / 'configs' / '_base_' / 'runtime_pretrain.py')
    with pytest.raises(ValueError, match='runtime_pretrain.py has no model'):
        benchmark([part])
    root = 'test_dataloader.dataset.data_root='
    with pytest.raises(FileNotFoundError, match='nowhere.*digit_scenes: run python'):
        benchmark([config, '--cfg-options', f'{root}nowhere'])
    objects = f'{root}{workplace.folder}/data/digit_scenes/objects'
    with pytest.raises(ValueError, match='has 40 images, too few for --batch-size 41'):
        benchmark([config, '--batch-size', '41', '--cfg-options', objects])
    wrong = [
        (['--iterations', '5'], '--iterations must be more than 5, got 5'),
        (['--repeat-times', '0'], '--repeat-times must be positive, got 0'),
    ]
    if not torch.cuda.is_available():
        wrong.append((['--amp'], '--amp needs an accelerator'))
    for arguments, message in wrong:
        with pytest.raises(SystemExit):
            benchmark([config, *arguments])
        assert message in capsys.readouterr().err.splitlines()[-1]
