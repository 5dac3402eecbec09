"""The backbone's contract: outputs, freezing, sizes, compilation, mistakes."""

import pytest
import timm
import torch
from torch import nn

from locat_mm.models import LocAtViT, PatchRepresentationRefinement

SMALL = dict(arch=dict(embed_dim=24, depth=3, num_heads=3), img_size=32, patch_size=8)


def make(**kwargs):
    return LocAtViT(**{**SMALL, **kwargs}).eval()


@pytest.fixture
def image():
    return torch.randn(2, 3, 32, 48)


@pytest.mark.parametrize(
    'out_type, shape',
    [
        ('raw', (2, 27, 24)),
        ('cls_token', (2, 24)),
        ('featmap', (2, 24, 4, 6)),
        ('avg_featmap', (2, 24)),
    ],
)
def test_out_types(out_type, shape, image):
    outputs = make(out_type=out_type, num_registers=2, out_indices=[0, -1])(image)
    assert isinstance(outputs, tuple) and [tuple(o.shape) for o in outputs] == [shape] * 2


def test_out_types_agree_with_each_other(image):
    models = {t: make(out_type=t, final_norm=False) for t in LocAtViT.OUT_TYPES}
    for model in models.values():
        model.load_state_dict(models['raw'].state_dict())
    out = {t: model(image)[0] for t, model in models.items()}
    tokens = out['raw']
    torch.testing.assert_close(out['cls_token'], tokens[:, 0])
    torch.testing.assert_close(out['featmap'].flatten(2).mT, tokens[:, 1:])
    torch.testing.assert_close(out['avg_featmap'], tokens[:, 1:].mean(1))


def test_the_final_norm_is_the_last_blocks_alone(image):
    normed = make(out_type='raw', out_indices=[1, 2])
    bare = make(out_type='raw', out_indices=[1, 2], final_norm=False)
    bare.load_state_dict({k: v for k, v in normed.state_dict().items() if 'norm.' not in k})
    torch.testing.assert_close(normed(image)[0], bare(image)[0])
    torch.testing.assert_close(normed(image)[1], normed.norm(bare(image)[1]))


@pytest.mark.parametrize('options', [{}, {'class_token': False, 'global_pool': 'avg'}], ids=str)
def test_plain_equals_timm(options):
    theirs = timm.create_model(
        'vit_tiny_patch16_224', img_size=32, patch_size=8, num_classes=0, depth=2, **options
    ).eval()
    gap = bool(options)
    ours = LocAtViT(
        dict(embed_dim=192, depth=2, num_heads=3),
        img_size=32,
        patch_size=8,
        gaug=False,
        class_token=not gap,
        out_type='avg_featmap' if gap else 'cls_token',
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(image)[0], theirs(image), rtol=0, atol=1e-6)


def test_a_seed_gives_plain_and_locat_the_same_host():
    torch.manual_seed(1)
    plain = make(gaug=False).state_dict()
    torch.manual_seed(1)
    locat = make().state_dict()
    assert all(torch.equal(locat[key], value) for key, value in plain.items())


def test_frozen_survives_train_and_builds_no_graph(image):
    model = make(frozen=True, drop_path_rate=0.9, out_type='featmap')
    holder = nn.ModuleList([model]).train()
    assert not any(m.training for m in holder[0].modules())
    assert not any(p.requires_grad for p in model.parameters())
    first, second = model(image)[0], model(image)[0]
    assert not first.requires_grad and torch.equal(first, second)
    head = nn.Conv2d(24, 2, 1)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()])
    head(first).sum().backward()
    optimizer.step()
    assert set(optimizer.state) == set(head.parameters())


def test_blocks_after_the_last_output_are_neither_run_nor_trained(image):
    model = make(out_type='featmap', out_indices=[0, 1])
    ran = []
    model.blocks[2].register_forward_hook(lambda *_: ran.append(1))
    sum(o.sum() for o in model(image)).backward()
    assert not ran
    for name, parameter in model.named_parameters():
        unused = name.startswith(('blocks.2', 'norm.'))
        assert parameter.requires_grad != unused, name
        if not unused and 'gaug' not in name:
            assert parameter.grad is not None, name


@pytest.mark.parametrize('checkpointing', [False, True])
def test_two_image_sizes_and_one_backward(checkpointing):
    """The grid travels with the call: the second forward does not disturb the first graph."""
    model = make(grad_checkpointing=checkpointing, out_type='raw').train()
    # 4×6 and 6×4 patches: the same number of tokens on different grids.
    images = [torch.randn(1, 3, *size) for size in ((32, 48), (48, 32), (32, 32))]
    sum(model(x)[0].square().sum() for x in images).backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    reference = make(out_type='raw')
    reference.load_state_dict(model.state_dict())
    for x in images:
        reference(x)[0].square().sum().backward()
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_compiled_and_exported_give_the_same_numbers(image):
    model = make(out_type='raw', out_indices=[1, 2])
    expected = model(image)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    with torch.no_grad():
        for other in (image, torch.randn(1, 3, 48, 32), torch.randn(3, 3, 35, 45)):
            for ours, eager in zip(compiled(other), model(other), strict=True):
                torch.testing.assert_close(ours, eager, rtol=0, atol=1e-5)
    exported = torch.export.export(model, (image,)).module()
    for ours, eager in zip(exported(image), expected, strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=1e-5)


def test_compiled_training_with_checkpointing_gives_the_same_gradients(image):
    model = make(out_type='raw', grad_checkpointing=True).train()
    images = (image, torch.randn(1, 3, 48, 32))
    sum(model(x)[0].square().sum() for x in images).backward()
    eager = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    torch._dynamo.reset()
    # Static shapes: torch 2.11 cannot differentiate timm's antialiased resize of the position
    # embedding to a symbolic size.
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True, dynamic=False)
    sum(compiled(x)[0].square().sum() for x in images).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, eager[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16], ids=str)
def test_autocast(dtype, image):
    model = make(out_type='raw').train()
    with torch.autocast('cpu', dtype=dtype):
        out = model(image)[0]
    torch.testing.assert_close(out.float(), model(image)[0], rtol=0.1, atol=0.1)
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_without_prr_the_last_blocks_gaug_learns_nothing_from_cls(image):
    """The paper's central claim."""
    for prr in (False, True):
        model = make(out_type='raw' if prr else 'cls_token').train()
        features = model(image)
        if prr:
            features = PatchRepresentationRefinement(num_heads=3)(features)
        features[0].square().sum().backward()
        for index, block in enumerate(model.blocks):
            for parameter in block.attn.gaug.parameters():
                learns = parameter.grad.abs().sum() > 0
                assert learns == (prr or index < 2), (prr, index)


def test_runs_on_the_meta_device():
    with torch.device('meta'):
        assert make(out_type='featmap')(torch.empty(1, 3, 32, 48))[0].shape == (1, 24, 4, 6)


def test_a_hosts_own_loop_is_refused(image):
    """timm's forward_features hands on no grid; guessing one would give wrong numbers."""
    with pytest.raises(ValueError, match='needs grid_size'):
        make().forward_features(image)


def test_batch_of_one_and_a_single_patch():
    out = make(out_type='featmap')(torch.randn(1, 3, 8, 8))[0]
    assert out.shape == (1, 24, 1, 1) and out.isfinite().all()


def test_layer_depth_for_layer_wise_decay():
    model = make()
    depths = {n: model.get_layer_depth(f'backbone.{n}', 'backbone.') for n in model.state_dict()}
    assert all(total == 5 for _, total in depths.values())
    assert {n for n, (d, _) in depths.items() if d == 0} == {
        *('cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias')
    }
    assert depths['blocks.0.attn.gaug.log_var.weight'][0] == 1
    assert depths['blocks.2.mlp.fc1.weight'][0] == 3
    assert depths['norm.weight'][0] == 4
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        (dict(arch='huge'), ValueError, "unknown arch 'huge'; choose from tiny, small, base"),
        (dict(arch=3), TypeError, 'arch must be a name or a dict, got 3'),
        (dict(arch=dict(embed_dim=8)), ValueError, "keys .* got {'embed_dim': 8}"),
        (
            dict(arch=dict(embed_dim=10, depth=1, num_heads=3)),
            ValueError,
            'embed_dim=10 is not divisible by num_heads=3',
        ),
        (dict(out_type='map'), ValueError, "unknown out_type 'map'"),
        (dict(pos_embed='sine'), ValueError, "unknown pos_embed 'sine'"),
        (dict(class_token=False), ValueError, "out_type='cls_token' needs class_token=True"),
        (dict(out_indices=3), ValueError, r'out_indices=3 must be within 0\.\.2'),
        (dict(out_indices=[1, 0]), ValueError, 'ascending'),
        (dict(img_size=4), ValueError, r'img_size=\(4, 4\) is smaller than patch_size=\(8, 8\)'),
        (dict(attention_backend='x'), ValueError, "unknown attention backend 'x'"),
        (dict(gaug=False, attention_backend='eager'), ValueError, 'needs gaug=True'),
    ],
)
def test_mistakes_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        make(**kwargs)


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match='an image of 7×40 pixels is smaller than a patch of 8×8'):
        make()(torch.randn(1, 3, 7, 40))
