"""Every command in docs/inference.md runs as it stands."""

import functools
import re
import runpy
import shlex
import shutil

import numpy as np
import pytest
import timm
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from locat_mm.config import load_config
from locat_mm.models.backbones import timm_backbone

PAGE = 'docs/inference.md'


@pytest.fixture(scope='module')
def commands(root):
    blocks = re.findall(r'```bash\n(.*?)```', (root / PAGE).read_text(encoding='utf-8'), re.S)
    return [shlex.split(block.replace('\\\n', ' ')) for block in blocks]


@pytest.fixture
def place(tmp_path, root, monkeypatch):
    """A clone's configs, random checkpoints where training would put them, and small pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(root / 'configs')
    for name, file in (('segment', 'iter_600'), ('classify', 'epoch_8')):
        cfg = load_config(f'configs/demo/locatvit_{name}.py')
        init_default_scope(cfg.default_scope)
        classes = cfg.metainfo.classes if name == 'segment' else [*'0123456789']
        meta = dict(dataset_meta=dict(classes=classes))
        path = tmp_path / 'work_dirs' / f'locatvit_{name}' / f'{file}.pth'
        path.parent.mkdir(parents=True)
        torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=meta), path)
    draw = np.random.default_rng(0)
    for folder, count in (('few', 2), ('new', 2)):
        for kind in ('images', 'masks'):
            (tmp_path / folder / kind).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((80, 96), np.uint8)
            mask[20:60, 10 * index : 50] = 1
            image = draw.integers(0, 99, (80, 96, 3), dtype=np.uint8) + 100 * mask[..., None]
            for kind, pixels in (('images', image), ('masks', mask)):
                Image.fromarray(pixels).save(tmp_path / folder / kind / f'{index}.png')
    (tmp_path / 'photos').mkdir()
    shutil.copy(tmp_path / 'new' / 'images' / '0.png', tmp_path / 'photos')
    (tmp_path / 'classes.txt').write_text('ground\nthing\n')

    # Two blocks of the large backbone are enough here.
    monkeypatch.setattr(timm, 'create_model', functools.partial(timm.create_model, depth=2))

    def fetch(source, map_location=None):  # in place of the hub
        torch.manual_seed(0)
        return timm.create_model(source.removeprefix('timm:')).state_dict()

    monkeypatch.setattr(timm_backbone, 'read_state_dict', fetch)
    return tmp_path


def test_commands(commands, place, root):
    assert len(commands) == 5
    for python, tool, *arguments in commands:
        assert python == 'python'
        assert runpy.run_path(str(root / tool))['main'](arguments) == 0, arguments
    for folder in ('result', 'windows', 'scored'):
        assert (place / folder / 'legend.png').is_file()
        assert list((place / folder / 'masks').glob('*.png'))
    assert (place / 'classes' / 'predictions.csv').read_text().count('\n') == 4
    assert (place / 'scored' / 'scores.json').is_file()
