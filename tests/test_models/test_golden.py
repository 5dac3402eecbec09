"""Backbones, maps, logits and gradients against the authors' code."""

import json

import pytest
import torch
from mmpretrain.models import ImageClassifier

from locat_mm import load_official
from tests.support.golden import GOLDEN, VARIANTS, Golden


@pytest.fixture(scope='module', params=VARIANTS)
def golden(request):
    return Golden(request.param)


@pytest.mark.parametrize(
    ('golden', 'backend'),
    [
        (name, backend)
        for name in VARIANTS
        for backend in ((None, 'eager', 'naive') if Golden(name).gaug else (None,))
    ],
    indirect=['golden'],
)
def test_features_and_maps(golden, backend):
    shared = dict(attention_backend=backend)
    tokens = golden.backbone(out_type='raw', final_norm=not golden.gap, **shared)
    indices = golden.meta['seg_indices']
    maps = golden.backbone(out_type='featmap', final_norm=False, out_indices=indices, **shared)
    for model in (tokens, maps):
        load_official(model, golden.state_dict)
    for size in golden.sizes:
        image = golden[f'in/{size}']
        theirs = golden[f'features/{size}']
        ours = tokens(image)[0]
        pairs = [(ours.reshape(theirs.shape), theirs)]  # Swin's keep their grid
        pairs += [
            (ours, golden[f'seg{index}/{size}'])
            for index, ours in zip(indices, maps(image), strict=True)
        ]
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('golden', 'options'),
    [
        (name, options)
        for name in VARIANTS
        for options in (
            dict(),
            dict(grad_checkpointing=True),
            *([dict(attention_backend='eager')] if Golden(name).gaug else []),
        )
    ],
    indirect=['golden'],
    ids=lambda x: x if isinstance(x, str) else '-'.join(map(str, x.values())) or 'plain',
)
def test_logits_and_gradients(golden, options):
    model = golden.classifier(**options)
    load_official(model, golden.state_dict)
    for size in golden.sizes:
        logits = model(golden[f'in/{size}'])
        torch.testing.assert_close(logits, golden[f'logits/{size}'], rtol=0, atol=1e-5)
    model(golden[f'in/{golden.sizes[0]}']).square().sum().backward()
    found = {name.removeprefix('backbone.'): p.grad for name, p in model.named_parameters()}
    found['head.weight'] = found['head.fc.weight']
    compared = [key[5:] for key in golden.arrays if key.startswith('grad/')]
    assert compared
    for key in compared:
        theirs = golden[f'grad/{key}']
        error = (found[key] - theirs).abs().max()
        assert error <= 1e-4 * theirs.abs().max(), (key, error)


COUNTS = json.loads((GOLDEN / 'param_counts.json').read_text())


@pytest.mark.parametrize('name', COUNTS)
def test_parameter_counts(name):
    arch = next(size for size in ('tiny', 'small', 'base') if size in name)
    family = next((f for f in ('swin', 'rope', 'jumbo') if f in name), 'vit')
    kwargs = dict(arch=arch, gaug=name.startswith('locat'))
    channels = dict(tiny=192, small=384, base=768)[arch]
    if family == 'swin':
        kind, channels = 'Swin', dict(tiny=768, base=1024)[arch]
    elif family == 'rope':
        kind = 'RoPEViT'
    elif family == 'jumbo':
        kind, channels = 'Jumbo', 6 * channels
    else:
        kind = 'ViT'
        kwargs['num_registers'] = 4 if name.endswith('+reg4') else 0
    with torch.device('meta'):
        model = ImageClassifier(
            backbone=dict(type=f'locat_mm.LocAt{kind}', **kwargs),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=channels),
        )
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]
