"""What every backbone owes OpenMMLab, family by family. LocAtViT's own tests go deeper."""

import pytest
import timm
import torch
from mmengine.config import Config
from torch import nn

from locat_mm.models import LocAtJumbo, LocAtRoPEViT, LocAtSwin, LocAtViT
from locat_mm.registry import MODELS

TOKENS = dict(arch=dict(embed_dim=24, depth=3, num_heads=3), img_size=32, patch_size=8)
SWIN = dict(arch=dict(embed_dim=8, depths=(2, 1, 1), num_heads=(1, 2, 4)), img_size=64)
SWIN['window_size'] = 4
FAMILIES = {
    'vit': (LocAtViT, TOKENS),
    'regvit': (LocAtViT, {**TOKENS, 'num_registers': 4}),
    'ropevit': (LocAtRoPEViT, TOKENS),
    'jumbo': (LocAtJumbo, {**TOKENS, 'num_jumbo_tokens': 3}),
    'swin': (LocAtSwin, SWIN),
}
#: family -> out_type -> shape for two images of 32×48 pixels
SHAPES = {
    'ropevit': dict(raw=(25, 24), cls_token=(24,), featmap=(24, 4, 6), avg_featmap=(24,)),
    'jumbo': dict(raw=(27, 24), cls_token=(72,), featmap=(24, 4, 6), avg_featmap=(24,)),
    'swin': dict(raw=(6, 32), featmap=(32, 2, 3), avg_featmap=(32,)),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def image():
    return torch.randn(2, 3, 32, 48)


def make(family, **kwargs):
    cls, small = FAMILIES[family]
    return cls(**{**small, **kwargs}).eval()


@pytest.mark.parametrize('family', SHAPES)
def test_out_types(family, image):
    assert set(SHAPES[family]) == set(FAMILIES[family][0].OUT_TYPES)
    models = {kind: make(family, out_type=kind, final_norm=False) for kind in SHAPES[family]}
    raw = models['raw'].state_dict()
    out = {}
    for kind, model in models.items():
        model.load_state_dict(raw)
        (out[kind],) = model(image)
        assert out[kind].shape == (2, *SHAPES[family][kind])
    num_patches = out['featmap'].flatten(2).shape[2]
    patches = out['raw'][:, -num_patches:]
    torch.testing.assert_close(out['featmap'].flatten(2).mT, patches)
    torch.testing.assert_close(out['avg_featmap'], patches.mean(1))
    if 'cls_token' in out:
        prefix = out['raw'][:, :-num_patches].flatten(1)
        torch.testing.assert_close(out['cls_token'], prefix)


def test_frozen_survives_train_and_builds_no_graph(family, image):
    model = make(family, frozen=True, drop_path_rate=0.9, out_type='featmap')
    holder = nn.ModuleList([model]).train()
    assert not any(m.training for m in holder[0].modules())
    assert not any(p.requires_grad for p in model.parameters())
    first, second = model(image)[0], model(image)[0]
    assert not first.requires_grad and torch.equal(first, second)


@pytest.mark.parametrize('gaug', [False, True], ids=['plain', 'locat'])
@pytest.mark.parametrize('checkpointing', [False, True], ids=['stored', 'recomputed'])
def test_every_trainable_parameter_gets_a_gradient(family, gaug, checkpointing, image):
    """Or DistributedDataParallel would hang."""
    cases = [dict(out_type='featmap', final_norm=False), dict(out_type='featmap', out_indices=[0])]
    cases += [dict(out_type=kind) for kind in FAMILIES[family][0].OUT_TYPES]
    for case in cases:
        model = make(family, gaug=gaug, grad_checkpointing=checkpointing, **case).train()
        sum(out.square().sum() for out in model(image)).backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (case, name)
    assert any('gaug' in name for name in model.state_dict()) == gaug


def test_a_seed_gives_plain_and_locat_the_same_host(family):
    torch.manual_seed(1)
    plain = make(family, gaug=False).state_dict()
    torch.manual_seed(1)
    locat = make(family).state_dict()
    assert all(torch.equal(locat[key], value) for key, value in plain.items())


def test_two_image_sizes_and_one_backward(family):
    model = make(family, grad_checkpointing=True, out_type='raw').train()
    images = [torch.randn(1, 3, *size) for size in ((32, 48), (48, 32), (35, 45))]
    sum(model(x)[0].square().sum() for x in images).backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters()}
    reference = make(family, out_type='raw')
    reference.load_state_dict(model.state_dict())
    for x in images:
        reference(x)[0].square().sum().backward()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('family', ['ropevit', 'jumbo', 'swin'])
def test_compiled_gives_the_same_numbers(family, image):
    model = make(family, out_type='featmap', out_indices=[1, 2])
    torch._dynamo.reset()
    # Static shapes: Swin's shift masks take minutes to trace for symbolic sizes.
    compiled = torch.compile(model, backend='aot_eager', dynamic=False)
    with torch.no_grad():
        for ours, eager in zip(compiled(image), model(image), strict=True):
            torch.testing.assert_close(ours, eager, rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16], ids=str)
def test_autocast(family, dtype, image):
    model = make(family, out_type='raw').train()
    with torch.autocast('cpu', dtype=dtype):
        out = model(image)[0]
    torch.testing.assert_close(out.float(), model(image)[0], rtol=0.1, atol=0.1)
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    'family, name, kwargs',
    [
        ('swin', 'swin_tiny_patch4_window7_224', dict(arch='tiny', out_type='avg_featmap')),
        ('swin', 'swin_small_patch4_window7_224', dict(arch='small', out_type='avg_featmap')),
        ('ropevit', 'vit_small_patch16_rope_mixed_224', dict(arch='small')),
    ],
)
def test_plain_equals_timm_at_full_size(family, name, kwargs):
    theirs = timm.create_model(name, num_classes=0, img_size=64).eval()
    ours = FAMILIES[family][0](img_size=64, gaug=False, **kwargs).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(image)[0], theirs(image), rtol=0, atol=1e-5)


def test_layer_depths_rise_with_the_layers(family):
    model = make(family, num_registers=4) if family == 'regvit' else make(family)
    depths = {n: model.get_layer_depth(f'backbone.{n}', 'backbone.') for n in model.state_dict()}
    (total,) = {total for _, total in depths.values()}
    blocks = 4 if family == 'swin' else 3
    assert total == blocks + 2
    for name, (depth, _) in depths.items():
        if name.startswith(('patch_embed', 'cls_token', 'reg_token', 'pos_embed', 'rope')):
            assert depth == 0, name
        elif name.startswith('norm'):
            assert depth == total - 1, name
        else:
            assert 1 <= depth <= blocks, name
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (total - 1, total)
    if family == 'swin':
        assert depths['layers.0.blocks.1.attn.gaug.log_var.weight'][0] == 2
        assert depths['layers.1.downsample.reduction.weight'][0] == 3
        assert depths['layers.2.blocks.0.mlp.fc1.weight'][0] == 4
    if family == 'jumbo':
        assert depths['jumbo_mlp.fc1.weight'][0] == blocks


def test_gaug_is_initialised_as_the_paper_starts(family):
    for name, parameter in make(family).named_parameters():
        if 'gaug' in name and name.endswith('bias'):
            assert not parameter.any(), name
        elif 'gaug' in name:
            assert 0 < parameter.abs().max() < 0.1, name


def test_swin_windows_shrink_with_the_map():
    """Window 7 on maps of 16, 8, 4 and 2 positions a side."""
    arch = dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    model = LocAtSwin(arch, img_size=64, window_size=7)
    sides = [stage.blocks[0].attn.gaug.grid_size for stage in model.layers]
    assert sides == [(7, 7), (7, 7), (4, 4), (2, 2)]


def test_a_jumbo_mlp_is_one_for_all_layers():
    names = [n for n in make('jumbo').state_dict() if 'jumbo_mlp' in n]
    assert sorted(names) == [f'jumbo_mlp.fc{i}.{p}' for i in (1, 2) for p in ('bias', 'weight')]


def test_prr_closes_the_pretraining_model(family, image):
    """Backbone, neck and head of a shipped config fit together, whatever the family."""
    neck = dict(type='locat_mm.PatchRepresentationRefinement')
    if family == 'swin':
        neck.update(num_heads=4, pool='avg')
    elif family == 'jumbo':
        neck.update(num_heads=3, pool='prefix', num_prefix_tokens=3)
    else:
        neck.update(num_heads=3, pool='cls_token')
    backbone = make(family, out_type='featmap' if family == 'swin' else 'raw').train()
    feature = MODELS.build(Config(neck).to_dict())(backbone(image))[-1]
    feature.square().sum().backward()
    assert feature.shape == (2, {'swin': 32, 'jumbo': 72}.get(family, 24))
    *_, last = (p for n, p in backbone.named_parameters() if n.endswith('gaug.log_var.weight'))
    assert last.grad.abs().sum() > 0  # PRR alone reaches the last block's GAug


@pytest.mark.parametrize(
    'family, kwargs, message',
    [
        ('swin', dict(out_type='cls_token'), "unknown out_type 'cls_token'; choose from raw"),
        ('swin', dict(out_indices=3), r'out_indices=3 must be within 0\.\.2'),
        ('swin', dict(window_size=0), 'got window_size=0'),
        ('swin', dict(arch='large'), "unknown arch 'large'"),
        (
            'swin',
            dict(arch=dict(embed_dim=8, depths=(1, 1), num_heads=(1,))),
            r'depths=\(1, 1\) and num_heads=\(1,\) must have one entry per stage',
        ),
        (
            'swin',
            dict(arch=dict(embed_dim=8, depths=(1, 1), num_heads=(1, 3))),
            'the width 16 of stage 1 is not divisible by its 3 heads',
        ),
        ('swin', dict(gaug=False, attention_backend='eager'), 'needs gaug=True'),
        (
            'ropevit',
            dict(arch=dict(embed_dim=18, depth=1, num_heads=3)),
            'rotary embedding needs head_dim=6 divisible by 4',
        ),
        ('ropevit', dict(class_token=False), "out_type='cls_token' needs class_token=True"),
        ('jumbo', dict(num_jumbo_tokens=0), 'num_jumbo_tokens=0'),
        ('jumbo', dict(pos_embed='sine'), "unknown pos_embed 'sine'"),
        ('jumbo', dict(img_size=4), r'img_size=\(4, 4\) is smaller'),
    ],
)
def test_mistakes_are_named(family, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(family, **kwargs)


def test_swin_refuses_other_sizes_when_told_to():
    model = make('swin', strict_img_size=True)
    assert model(torch.randn(1, 3, 64, 64))[0].shape == (1, 32)
    with pytest.raises(ValueError, match=r'strict_img_size=True and img_size=\(64, 64\) refuse'):
        model(torch.randn(1, 3, 64, 32))


@pytest.mark.parametrize('family', ['ropevit', 'jumbo', 'swin'])
def test_an_image_smaller_than_a_patch_is_refused(family):
    with pytest.raises(ValueError, match='is smaller than a patch of'):
        make(family)(torch.randn(1, 3, 3, 40))


@pytest.mark.parametrize('family', ['ropevit', 'jumbo', 'swin'])
def test_thin_images(family):
    side = 4 if family == 'swin' else 8
    out = make(family, out_type='featmap')(torch.randn(1, 3, side, 10 * side))[0]
    assert out.isfinite().all()
