"""benchmarks/compiled_models.py and rotated_kernels.py: wiring and tables, not the numbers."""

import re

import attention_cases
import compiled_models
import pytest
import rotated_kernels
import torch
from torch import nn

from locat_mm.models import LocAtViT

MODES = ('forward', 'training')
SMALL = ['--size', '32', '--batch-size', '2', '--rounds', '1']


@pytest.fixture
def table(capsys, monkeypatch):
    """Run a program on a model of one block; the rows of its table."""
    one_block = dict(embed_dim=48, depth=1, num_heads=3)
    for architectures in (attention_cases._ARCHS, LocAtViT.ARCHS):
        monkeypatch.setitem(architectures, 'tiny', one_block)

    def run(program) -> list[list[str]]:
        program.main([*SMALL, '--threads', str(torch.get_num_threads())])
        lines = [x for x in capsys.readouterr().out.splitlines() if x[:1] == '|']
        return [re.split(r' *\| *', line)[1:-1] for line in lines[2:]]

    return run


def test_compiled_models(table, monkeypatch):
    compiled, compile_module = [], nn.Module.compile

    def record(self, **options):
        compiled.append((self.backbone.blocks[0].attn.__class__.__name__, options))
        compile_module(self, backend='eager', **options)  # without a C++ compiler

    monkeypatch.setattr(nn.Module, 'compile', record)
    rows = table(compiled_models)
    assert [row[:2] for row in rows] == [
        [mode, name]
        for mode in MODES
        for name in ('ViT', 'LocAtViT', 'ViT, compiled', 'LocAtViT, compiled')
    ]
    both = [(name, {'dynamic': False}) for name in ('Attention', 'GaussianAugmentedAttention')]
    assert compiled == both * len(MODES)
    for *_, to_vit, to_compiled in (rows[0], rows[4]):
        assert to_vit == '1.00' and float(to_compiled) > 0
    assert rows[2][4] == rows[6][4] == '1.00'


def test_rotated_kernels(table):
    rows = table(rotated_kernels)
    assert [row[0] for row in rows] == list(MODES)
    assert all(float(x) > 0 for row in rows for x in row[1:])
