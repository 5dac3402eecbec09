"""Two processes give the numbers of one; 23 and 5 images do not divide by two."""

import json

import torch
from safetensors.torch import load_file

from tests.support import evaluated_in_two_processes as two_processes


def test_two_processes_equal_one(objects, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mmengine collects results in .dist_test
    alone, both = tmp_path / 'alone', tmp_path / 'both'
    alone.mkdir()
    both.mkdir()
    expected = two_processes.evaluate(objects, scenes, alone)
    two_processes.start(objects, scenes, both)
    assert json.loads((both / 'metrics.json').read_text()) == expected
    features, reference = (load_file(f / 'features.safetensors') for f in (both, alone))
    assert [len(reference[name]) for name in ('bank', 'queries')] == [23, 9]
    for name, value in reference.items():
        torch.testing.assert_close(features[name], value, rtol=0, atol=1e-6, msg=name)
