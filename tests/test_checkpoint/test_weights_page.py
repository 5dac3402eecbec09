"""The Python examples of docs/weights.md run, with random weights in the hub's cache."""

import re
from pathlib import Path

import pytest
import timm
import torch
from timm.models import VisionTransformer

import locat_mm
from tests.support.golden import Golden

PAGE = (Path(__file__).parents[2] / 'docs/weights.md').read_text()
BLOCKS = [
    block for block in re.findall(r'```python\n(.*?)```', PAGE, re.S) if block.startswith('import')
]
REPO = 'sinahmr/locatvit_tiny'


@pytest.mark.parametrize('index', range(len(BLOCKS)))
def test_the_examples_run(index, hub, monkeypatch):
    weights = timm.create_model('locatvit_tiny').state_dict()
    hub.add(REPO, weights)
    hub.add(REPO, weights, commit='f' * 40, revision='REVISION')
    names: dict = {}
    exec(BLOCKS[index], names)
    for name in ('model', 'classifier'):
        if name in names:
            loaded = names[name].state_dict()
            prefix = 'backbone.' if name == 'classifier' else ''
            for key in ('blocks.11.attn.gaug.log_var.weight', 'cls_token'):
                assert torch.equal(loaded[prefix + key], weights[key])
    if 'features' in names:
        assert len(names['features'](torch.randn(1, 3, 224, 224))) == 3


def test_there_are_three_examples():
    assert len(BLOCKS) == 3


def test_timm_alone_gives_the_authors_logits():
    golden = Golden('locatvit')
    theirs = golden.meta['kwargs']
    keys = ('embed_dim', 'depth', 'num_heads', 'num_classes', 'img_size', 'patch_size')
    args = {key: theirs[key] for key in keys}
    model = VisionTransformer(
        global_pool='prr', dynamic_img_size=True, dynamic_img_pad=True, **args
    )
    locat_mm.attach(model, start='paper')
    model.load_state_dict(golden.state_dict)
    model.eval()
    for size in golden.sizes:
        torch.testing.assert_close(
            model(golden[f'in/{size}']), golden[f'logits/{size}'], rtol=0, atol=1e-5
        )
