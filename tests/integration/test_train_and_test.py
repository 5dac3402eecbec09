"""tools/train.py and tools/test.py, run as a user runs them."""

import json
import os
import re
import shutil
import signal
import time

import pytest
import torch

from locat_mm.checkpoint import read_state_dict
from tests.support import demo_config

CONSTANT = ['--cfg-options', 'param_scheduler=None', 'train_cfg.val_interval=1']
FEW = [*CONSTANT, 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=32']


@pytest.fixture(scope='module')
def pretrained(workplace):
    log = workplace.run('train.py', demo_config('locatvit_classify'), '--work-dir', 'pre', *FEW)
    return workplace.folder / 'pre' / 'epoch_2.pth', log


@pytest.fixture(scope='module')
def segmented(workplace, pretrained):
    log = workplace.run(
        'train.py',
        demo_config('locatvit_segment'),
        *('--work-dir', 'seg', '--cfg-options', 'train_cfg.max_iters=4'),
        *('train_cfg.val_interval=4', 'default_hooks.checkpoint.interval=2'),
        *('default_hooks.logger.interval=1', f'model.backbone.init_cfg.checkpoint={pretrained[0]}'),
    )
    return workplace.folder / 'seg' / 'iter_4.pth', log


def test_pretraining_and_its_test_agree(workplace, pretrained):
    checkpoint, log = pretrained
    trained = float(re.findall(r'Epoch\(val\).*accuracy/top1: ([\d.]+)', log)[-1])
    out = workplace.folder / 'top1.json'
    config = demo_config('locatvit_classify')
    workplace.run('test.py', config, checkpoint, '--out', out, '--out-item', 'metrics')
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(trained, abs=1e-3)
    workplace.run('test.py', config, checkpoint, '--show-dir', 'shown', '--interval', 20)
    assert len(list((workplace.folder / 'shown').glob('*.png'))) >= 1
    predictions = workplace.folder / 'predictions.pkl'
    workplace.run('test.py', config, checkpoint, '--tta', '--out', predictions)
    assert predictions.stat().st_size > 0


def test_decoding_trains_the_decoder_alone(workplace, pretrained, segmented):
    before, after = read_state_dict(pretrained[0]), read_state_dict(segmented[0])
    backbone = [k for k in after if k.startswith('backbone.')]
    assert backbone and all(torch.equal(after[k], before[k]) for k in backbone)
    saved = torch.load(segmented[0], weights_only=False)
    trained = sum(v.numel() for k, v in after.items() if k.startswith('decode_head.'))
    moments = [s['exp_avg'].numel() for s in saved['optimizer']['state'].values()]
    assert sum(moments) == trained


def test_decoding_and_its_test_agree(workplace, segmented):
    checkpoint, log = segmented
    trained = float(re.findall(r'mIoU: ([\d.]+)', log)[-1])
    config, out = demo_config('locatvit_segment'), workplace.folder / 'miou.json'
    tested = workplace.run(
        'test.py', config, checkpoint, '--out', out, '--out-item', 'metrics', '--show-dir', 'maps'
    )
    assert 'Falling back to weights_only=False' not in tested
    assert json.loads(out.read_text())['mIoU'] == pytest.approx(trained, abs=1e-2)
    assert len(list((workplace.folder / 'maps').rglob('*.png'))) == 6
    workplace.run('test.py', config, checkpoint, '--tta', '--out', 'predicted')
    assert len(list((workplace.folder / 'predicted').glob('*.png'))) == 6


def test_resume_after_a_kill_continues(workplace):
    args = (demo_config('vit_classify'), '--work-dir', 'killed', '--resume', *CONSTANT)
    args += ('train_cfg.max_epochs=40', 'train_dataloader.batch_size=16')
    work_dir = workplace.folder / 'killed'
    process = workplace.start('train.py', *args, log=workplace.folder / 'killed.txt')
    deadline = time.monotonic() + 120
    while not (work_dir / 'last_checkpoint').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    last = (work_dir / 'last_checkpoint').read_text()
    done = int(re.search(r'epoch_(\d+)', last).group(1))
    log = workplace.run(
        'train.py',
        *(a for a in args if 'max_epochs' not in str(a)),
        f'train_cfg.max_epochs={done + 1}',
    )
    assert re.search(rf'resumed epoch: {done}, iter: {done * 8}', log)
    assert (work_dir / f'epoch_{done + 1}.pth').exists()
    assert not re.search(rf'Epoch\(train\)\s+\[{done}\]', log)


def test_a_checkpoint_of_another_model_is_refused(workplace, pretrained):
    log = workplace.run('test.py', demo_config('vit_classify'), pretrained[0], fails=True)
    assert 'is a checkpoint of another model' in log
    assert 'unexpected: backbone.blocks.[0-3].attn.gaug.log_var.weight' in log
    work_dir = workplace.folder / 'foreign'
    work_dir.mkdir()
    shutil.copy(pretrained[0], work_dir / 'epoch_2.pth')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'))
    log = workplace.run(
        'train.py', demo_config('vit_classify'), '--work-dir', 'foreign', '--resume', fails=True
    )
    assert 'is a checkpoint of another model' in log


def test_dist_scripts_say_how_they_are_used(workplace):
    for script in ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'):
        assert f'{script} ' in workplace.run_anew(script, fails=True)


def test_slurm_scripts_call_srun(workplace, tmp_path, monkeypatch):
    fake = tmp_path / 'srun'
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv('SRUN_ARGS', '--time 1:00')
    printed = workplace.run_anew('slurm_train.sh', 'part', 'job', 'c.py', 'wd', '--amp')
    assert '-p part --job-name=job --gres=gpu:8 --ntasks=8' in printed
    assert '--time 1:00' in printed
    assert printed.strip().endswith('train.py c.py --work-dir=wd --launcher=slurm --amp')
    printed = workplace.run_anew('slurm_test.sh', 'part', 'job', 'c.py', 'ck.pth')
    assert printed.strip().endswith('test.py c.py ck.pth --launcher=slurm')
