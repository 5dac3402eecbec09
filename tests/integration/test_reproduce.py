"""tools/misc/reproduce.py on miniatures of the data: measured, stopped, run to the end."""

import json
import os
import re
import signal
import time

import pytest

from tests.support.paper_data import write_ade20k, write_imagenet
from tests.support.workplace import Workplace

LIMIT = 900
PIPELINE = 'train_dataloader.dataset.pipeline'
SMALL = [
    *('--table', 'main', '--rows', 'locatvit_tiny', '--gpus', 1, '--work-dir', 'runs'),
    '--cfg-options',
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
    *('--pretrain-options', 'optim_wrapper.type=OptimWrapper', 'param_scheduler=None'),
    *('train_dataloader.batch_size=2', 'train_cfg.max_epochs=3'),
    *('--decode-options', 'train_dataloader.batch_size=2', 'train_cfg.max_iters=4'),
    *(f'{PIPELINE}.3.scale=(128,64)', f'{PIPELINE}.4.crop_size=(64,64)'),
    'model.data_preprocessor.size=(64,64)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(128,64)' for split in ('val', 'test')),
]


@pytest.mark.fields
def test_measured_stopped_and_run_to_the_end(tmp_path):
    write_imagenet(tmp_path / 'data' / 'imagenet', 3)
    write_ade20k(tmp_path / 'data' / 'ade' / 'ADEChallengeData2016', 4)
    place, log = Workplace(tmp_path), tmp_path / 'log.txt'

    def start(*args):
        log.write_text('')
        return place.start('misc/reproduce.py', *args, *SMALL, log=log)

    assert start('--measure', 2).wait(LIMIT) == 0, log.read_text()[-3000:]
    costs = json.loads((tmp_path / 'runs' / 'costs.json').read_text())
    assert set(costs) == {'locatvit_tiny_imagenet', 'locatvit_tiny_ade20k'}
    assert all(cost['seconds'] > 0 for cost in costs.values())
    assert '2 of them measured' in log.read_text() and '0 of 4 steps' in log.read_text()
    assert not list((tmp_path / 'runs').rglob('*.pth'))

    process = start()
    folder = tmp_path / 'runs' / 'locatvit_tiny' / 'seed0'
    deadline = time.monotonic() + LIMIT
    while not (folder / 'imagenet' / 'epoch_1.pth').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(LIMIT) == 128 + signal.SIGTERM
    assert not (folder / 'imagenet' / 'epoch_3.pth').exists()

    assert start().wait(LIMIT) == 0, log.read_text()[-3000:]
    assert re.search(r'resumed epoch: \d, iter: [3-8]', (folder / 'imagenet/train.txt').read_text())
    top1 = json.loads((folder / 'imagenet' / 'metrics.json').read_text())['accuracy/top1']
    miou = json.loads((folder / 'ade20k' / 'metrics.json').read_text())['mIoU']
    page = (tmp_path / 'runs' / 'results.md').read_text()
    row = f'| LocAtViT-Tiny | {top1:.2f} | {miou:.2f} | 1 | 5,719,756 | 73.94 / 23.47 |'
    assert row in page.splitlines()

    assert start().wait(LIMIT) == 0
    assert log.read_text().count('already done') == 4
