"""docs/own_data.md: its commands run as they stand, one after the other, in an empty folder."""

import re
import runpy
import shlex
import subprocess
import sys

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from locat_mm.models import LocAtViT

BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@pytest.fixture
def run(root, tmp_path, monkeypatch):
    """Run a line of the page; tools run in this process, on a model of two blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LocAtViT.ARCHS, 'tiny', dict(embed_dim=192, depth=2, num_heads=3))

    def run(line):
        words = shlex.split(line)
        if words[0] != 'python':
            subprocess.run(['bash', '-c', line], check=True)
            return
        options = ['train_dataloader', 'val_dataloader', 'test_dataloader']
        options = [f'{o}.{key}' for o in options for key in ('num_workers=0', 'pin_memory=False')]
        options += [o.replace('num_workers=0', 'persistent_workers=False') for o in options[::2]]
        if words[1].endswith(('train.py', 'test.py')):  # without processes, for speed
            words += options if '--cfg-options' in words else ['--cfg-options', *options]
        monkeypatch.setattr(sys, 'argv', words[1:])
        DefaultScope._instance_dict.clear()
        try:
            runpy.run_path(str(root / words[1]), run_name='__main__')
        except SystemExit as done:
            assert not done.code

    return run


def test_the_commands_run(run, root, tmp_path, capsys):
    text = (root / 'docs/own_data.md').read_text()
    seen = []
    for language, block in BLOCK.findall(text):
        if language == 'python':
            exec(block, {})
        for line in block.splitlines() if language == 'bash' else ():
            run(line)
            seen.append(line)
    assert len(seen) == 13
    printed = capsys.readouterr().out
    assert 'background\n' in printed and "value 0 is the first name, 'background'" in printed
    assert 'Value 0 has no label' in printed
    assert Config.fromfile('digits_only.py').reduce_zero_label is True
    assert Config.fromfile('named.py').classes[:2] == ('zero', 'one')
    logs = [path.read_text() for path in tmp_path.glob('work_dirs/scenes/*/*.log')]
    assert sum('mIoU' in log for log in logs) == 2  # of training and of the test
    [log] = (path.read_text() for path in tmp_path.glob('work_dirs/digits/*/*.log'))
    assert 'accuracy/top1' in log
