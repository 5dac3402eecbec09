"""docs/satellite.md and docs/medical.md: their commands and blocks run on miniatures."""

import argparse
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
from mmengine.config import DictAction
from mmseg.registry import MODELS
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS

from locat_mm.config import load_config
from locat_mm.engine import build_runner
from tests.support import ROOT
from tests.support.raw_datasets import RAW, convert, encoded, photo, vessels
from tests.support.shipped import shrink
from tests.test_docs import BLOCK

from .test_fields import FIELDS, at_small_size

pytestmark = pytest.mark.fields

#: Options that make the tiles of the miniatures smaller.
SIZES = r' --(?:clip_size|patch_width) .*'


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / 'docs' / f'{page}.md').read_text()
    return [block.replace('\\\n', '') for found, block in BLOCK.findall(text) if found == language]


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, 'bash') for line in block.splitlines()]


@pytest.mark.parametrize('data', FIELDS)
def test_converters_are_called_as_documented(data, tmp_path, monkeypatch):
    """test_fields.py runs the converters with these arguments."""
    monkeypatch.chdir(tmp_path)
    given = re.sub(SIZES, '', ' '.join(RAW[data](Path('downloads') / data)))
    (line,) = [
        ln for ln in commands(FIELDS[data][0]) if re.match(rf'python \S*{data}(_conv\w*)?\.py', ln)
    ]
    arguments = shlex.split(line)[2:]
    if data == 'hrf':  # called in the folder of the archives
        arguments = [f'downloads/hrf/{name}' for name in arguments[: arguments.index('--out_dir')]]
    assert shlex.split(given) == arguments


def test_every_leaf_in_a_command_belongs_to_its_data_set():
    for folder in ('satellite', 'medical'):
        for line in commands(folder):
            leaf = re.search(r'configs/(\w+)/(\w+)\.py', line)
            checkpoint = re.search(r'work_dirs/(\w+)/iter_(\d+)\.pth', line)
            if checkpoint and leaf:
                cfg = load_config(str(ROOT / leaf[0]))
                assert leaf[1] == folder and checkpoint[1] == leaf[2]
                assert int(checkpoint[2]) == cfg.train_cfg.max_iters


def test_weights_from_the_masks(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    convert('potsdam', tmp_path / 'raw', monkeypatch)
    (command,) = [line for line in commands('satellite') if '--out report.json' in line]
    words = shlex.split(command)
    check = runpy.run_path(str(root / words[1]))['main']
    assert not check([str(root / words[2]), *words[3:], '--num-workers', '0'])
    (block,) = [text for text in blocks('satellite', 'python') if 'weights.json' in text]
    exec(block, {})
    weights = json.loads(Path('weights.json').read_text())
    pixels = [
        *json.loads(Path('report.json').read_text())['splits']['train']['pixels_per_class'].values()
    ]
    assert len(weights) == 6
    assert weights[0] / weights[1] == pytest.approx((pixels[1] / pixels[0]) ** 0.5, abs=0.02)
    (option,) = [
        w
        for ln in commands('satellite')
        for w in shlex.split(ln)
        if 'weights.json' in w and '=' in w
    ]
    cfg = load_config(str(root / words[2]), dict([option.split('=')]))
    loss = MODELS.build(cfg.model.decode_head.loss_decode)
    assert loss(torch.randn(1, 6, 4, 4), torch.ones(1, 4, 4, dtype=torch.long)).isfinite()


def test_the_kernel_at_other_windows(capsys):
    (block,) = [text for text in blocks('satellite', 'python') if 'GaussianAugment' in text]
    exec(block, {})
    assert capsys.readouterr().out in blocks('satellite', 'text')


def test_the_limit_of_a_patch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    convert('drive', tmp_path / 'raw', monkeypatch)
    capsys.readouterr()
    block, _ = blocks('medical', 'python')
    exec(block, {})
    limits = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(limits) == 3 and 100 >= limits[0] > limits[1] > limits[2] > 0


def test_another_crop_by_options(root):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    (line,) = [line for line in commands('medical') if 'crop_size' in line]
    words = shlex.split(line)
    options = parser.parse_args(words[words.index('--cfg-options') :]).cfg_options
    cfg = load_config(str(root / words[1]), options)
    model = cfg.model
    assert model.data_preprocessor.size == model.test_cfg.crop_size == (224, 224)
    assert model.test_cfg.stride == (149, 149)
    step = cfg.train_dataloader.dataset.dataset.pipeline[3]
    assert MMSEG_TRANSFORMS.build(step).crop_size == (224, 224)


def test_own_fundus_images(tmp_path, monkeypatch, root, one_thread):
    monkeypatch.chdir(tmp_path)
    for seed, split in enumerate(('training', 'training', 'validation')):
        for kind, pixels in (('images', photo(80, 90, seed)), ('masks', vessels(80, 90))):
            file = Path('data/fundus') / kind / split / f'{seed}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(pixels, 'PNG'))
    _, block = blocks('medical', 'python')
    Path('fundus.py').write_text(block)
    for line in commands('medical'):
        if 'colour_masks.py' in line or 'check_dataset.py fundus.py' in line:
            words = shlex.split(line)
            assert not runpy.run_path(str(root / words[1]))['main'](words[2:])
    overrides = shrink('locat/locatvit_tiny_upernet_ade20k.py')
    cfg = load_config('fundus.py', overrides, 'run')
    for loader in (cfg.train_dataloader.dataset.dataset, cfg.test_dataloader.dataset):
        scales = [step.scale for step in loader.pipeline if 'Resize' in step.type]
        assert scales == [(2048, 2048)]
    cfg = at_small_size(cfg)
    cfg.default_hooks.checkpoint = cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = build_runner(cfg)
    runner.train()
    assert 0 <= runner.test()['mDice'] <= 100
