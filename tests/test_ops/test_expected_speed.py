"""docs/kernels.md has the tables that the models of expected speed print."""

import importlib

import pytest


@pytest.mark.parametrize('name', ['expected_speed', 'expected_windows'])
def test_the_page_has_the_printed_tables(name, root, monkeypatch, capsys):
    monkeypatch.syspath_prepend(root / 'benchmarks')
    importlib.import_module(name).main([])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    page = (root / 'docs' / 'kernels.md').read_text().splitlines()
    assert len(rows) > 7 and not set(rows) - set(page)


def test_logits_of_a_window_model(root, monkeypatch):
    """Swin-Tiny: 64, 16, 4 and 1 windows of 49 patches; 3, 6, 12 and 24 heads."""
    monkeypatch.syspath_prepend(root / 'benchmarks')
    model = importlib.import_module('expected_windows')
    blocks = [(2, 64, 3), (2, 16, 6), (6, 4, 12), (2, 1, 24)]
    assert model.extra_logits('Tiny') == sum(n * w * h * 49 * 49 for n, w, h in blocks)
