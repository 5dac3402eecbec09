"""Backbones, maps, logits and gradients against the authors' code."""

import json

import pytest
import torch
from golden import GOLDEN, VIT_VARIANTS, Golden
from mmpretrain.models import ImageClassifier

from locat_mm import load_official
from locat_mm.models import LocAtViT


@pytest.fixture(scope='module', params=VIT_VARIANTS)
def golden(request):
    return Golden(request.param)


@pytest.mark.parametrize('backend', ['eager', 'naive'])
def test_features_and_maps(golden, backend):
    if not golden.vit_kwargs()['gaug']:
        backend = None
    shared = dict(attention_backend=backend)
    tokens = golden.backbone(out_type='raw', final_norm=not golden.gap, **shared)
    indices = golden.meta['seg_indices']
    maps = golden.backbone(out_type='featmap', final_norm=False, out_indices=indices, **shared)
    for model in (tokens, maps):
        load_official(model, golden.state_dict)
    for size in golden.sizes:
        image = golden[f'in/{size}']
        pairs = [(tokens(image)[0], golden[f'features/{size}'])]
        pairs += [
            (ours, golden[f'seg{index}/{size}'])
            for index, ours in zip(indices, maps(image), strict=True)
        ]
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize('grad_checkpointing', [False, True], ids=['plain', 'checkpointing'])
def test_logits_and_gradients(golden, grad_checkpointing):
    model = golden.classifier(grad_checkpointing=grad_checkpointing)
    load_official(model, golden.state_dict)
    for size in golden.sizes:
        logits = model(golden[f'in/{size}'])
        torch.testing.assert_close(logits, golden[f'logits/{size}'], rtol=0, atol=1e-5)
    model(golden[f'in/{golden.sizes[0]}']).square().sum().backward()
    found = {name.removeprefix('backbone.'): p.grad for name, p in model.named_parameters()}
    found['head.weight'] = model.head.fc.weight.grad
    compared = [key[5:] for key in golden.arrays if key.startswith('grad/')]
    assert compared
    for key in compared:
        theirs = golden[f'grad/{key}']
        error = (found[key] - theirs).abs().max()
        assert error <= 1e-4 * theirs.abs().max(), (key, error)


@pytest.mark.parametrize('arch', ['tiny', 'small', 'base'])
@pytest.mark.parametrize('gaug', [False, True], ids=['vit', 'locatvit'])
def test_parameter_counts(arch, gaug):
    counts = json.loads((GOLDEN / 'param_counts.json').read_text())
    for registers in (0, 4):
        name = f'locatvit_{arch}' if gaug else f'vit_{arch}_patch16_224'
        name += '+reg4' if registers else ''
        if name not in counts:
            continue
        with torch.device('meta'):
            model = ImageClassifier(
                backbone=dict(
                    type='locat_mm.LocAtViT', arch=arch, gaug=gaug, num_registers=registers
                ),
                head=dict(
                    type='LinearClsHead',
                    num_classes=1000,
                    in_channels=LocAtViT.ARCHS[arch]['embed_dim'],
                ),
            )
        assert sum(p.numel() for p in model.parameters()) == counts[name], name
