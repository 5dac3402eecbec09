"""Weights into models: what fits, what does not, and under which names."""

import argparse
import itertools
import random
import re

import pytest
import timm
import torch
from mmengine.config import ConfigDict
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from locat_mm import load_official
from locat_mm.checkpoint import check_fit, loading, watch_pretrained
from locat_mm.checkpoint.fitting import list_keys
from locat_mm.models import LocAtSwin, LocAtViT
from locat_mm.registry import MODELS
from tests.support.checkpoints import build, segmentor_cfg
from tests.support.golden import Golden


@pytest.mark.parametrize('form', ['dict', 'safetensors', 'pth', 'state_dict', 'model', 'module.'])
def test_every_form_of_source(form, golden, tmp_path):
    state = golden.state_dict
    if form == 'dict':
        source = state
    elif form == 'safetensors':
        source = tmp_path / 'weights.safetensors'
        save_file(state, source)
    else:
        source = tmp_path / 'weights.pth'
        content = {
            'pth': state,
            # timm's training script stores its arguments beside the weights
            'state_dict': {'state_dict': state, 'args': argparse.Namespace(lr=1.0)},
            'model': {'model': state, 'epoch': 3},
            'module.': {f'module.{k}': v for k, v in state.items()},
        }[form]
        torch.save(content, source)
    backbone = golden.backbone(out_type='raw')
    assert load_official(backbone, source) is backbone
    size = golden.sizes[0]
    out = backbone(golden[f'in/{size}'])[0]
    torch.testing.assert_close(out, golden[f'features/{size}'], rtol=0, atol=1e-5)


def test_into_a_segmentor_loads_the_backbone_alone(golden):
    model = build(segmentor_cfg(golden))
    head = {k: v.clone() for k, v in model.decode_head.state_dict().items()}
    load_official(model, golden.state_dict)
    size = golden.sizes[0]
    out = model.backbone(golden[f'in/{size}'])[0]
    torch.testing.assert_close(out, golden[f'seg1/{size}'], rtol=0, atol=1e-5)
    assert all(torch.equal(v, head[k]) for k, v in model.decode_head.state_dict().items())


def test_weights_of_timm_load_with_unchanged_keys():
    theirs = timm.create_model('vit_tiny_patch16_224', depth=2)
    ours = LocAtViT(dict(embed_dim=192, depth=2, num_heads=3), gaug=False)
    load_official(ours, theirs.state_dict())
    assert torch.equal(ours.blocks[1].attn.qkv.weight, theirs.blocks[1].attn.qkv.weight)


def test_position_embeddings_are_resized_as_timm_resizes_them():
    theirs = timm.create_model('vit_tiny_patch16_224', depth=1, num_classes=0)
    arch = dict(embed_dim=192, depth=1, num_heads=3)
    ours = LocAtViT(arch, img_size=(96, 160), gaug=False)
    load_official(ours, theirs.state_dict())
    theirs.set_input_size((96, 160))
    torch.testing.assert_close(ours.pos_embed, theirs.pos_embed)


def test_a_grid_of_another_shape_and_the_same_count_is_resized():
    theirs = timm.create_model('vit_tiny_patch16_224', img_size=64, depth=1, num_classes=0)
    ours = LocAtViT(dict(embed_dim=192, depth=1, num_heads=3), img_size=(32, 128), gaug=False)
    load_official(ours, theirs.state_dict())  # 4×4 to 2×8 patches
    theirs.set_input_size((32, 128))
    torch.testing.assert_close(ours.pos_embed, theirs.pos_embed)


def expand(listing):
    """Reads what ``list_keys`` writes."""
    for word in re.split(r', ', re.sub(r'\[[^]]*\]', lambda m: m[0].replace(',', ';'), listing)):
        ranges = re.findall(r'\[([^]]*)\]', word)
        choices = [
            [
                n
                for run in r.split(';')
                for n in range(int(run.split('-')[0]), int(run.split('-')[-1]) + 1)
            ]
            for r in ranges
        ]
        for numbers in itertools.product(*choices):
            parts = iter(numbers)
            yield re.sub(r'\[[^]]*\]', lambda _, parts=parts: str(next(parts)), word)


def test_a_listing_of_keys_has_every_key_and_no_other():
    random.seed(0)
    names = ['cls_token', *(f'blocks.{i}.{j}.bias' for i in range(13) for j in range(3))]
    names += [f'layers.{i}.a.{i}' for i in range(4)] + ['x.00.y', 'x.0.y', 'x.1.y', 'x.1', 'x.2']
    assert list_keys(names[:40]) == 'cls_token, blocks.[0-12].[0-2].bias'
    for count in [*range(1, len(names)), *range(1, len(names))]:
        chosen = random.sample(names, count)
        found = list(expand(list_keys(chosen)))
        assert sorted(found) == sorted(chosen)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16, torch.double], ids=str)
def test_other_precisions_load(dtype, golden):
    state = {key: value.to(dtype) for key, value in golden.state_dict.items()}
    loaded = load_official(golden.backbone(), state)
    expected = state['pos_embed'].float()
    torch.testing.assert_close(loaded.pos_embed, expected, rtol=0, atol=0)


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda value: value.int(), 'torch.int32 instead of torch.float32'),
        (lambda value: value.to(torch.complex64), 'torch.complex64 instead of torch.float32'),
        (lambda value: value > 0, 'torch.bool instead of torch.float32'),
        (lambda value: value.to_sparse(), 'torch.sparse_coo instead of torch.strided'),
        (lambda value: value / 0, 'with NaN or infinity'),
        (lambda value: value.double() * 1e300, 'with NaN or infinity'),
    ],
    ids=['int', 'complex', 'bool', 'sparse', 'nan', 'overflow'],
)
def test_values_that_are_no_weights_are_refused(spoil, message, strict, golden):
    key = 'blocks.1.mlp.fc1.weight'
    state = {**golden.state_dict, key: spoil(golden.state_dict[key])}
    with pytest.raises(ValueError, match=f'(?s)it is damaged.*unusable: {key} {message}'):
        load_official(golden.backbone(), state, strict=strict)


def test_a_start_from_which_the_backbone_takes_nothing_is_refused(golden):
    model = build(segmentor_cfg(golden))
    state = model.state_dict()
    head = {key: value for key, value in state.items() if key.startswith('decode_head.')}
    key = 'backbone.pos_embed'
    with pytest.raises(ValueError, match='Nothing of it fits the backbone'):
        check_fit(model, {**head, f'{key}s': state[key]}, 'it', strict=False, whole=False)
    fitted = check_fit(model, {**head, key: state[key]}, 'it', strict=False, whole=False)
    assert set(fitted.state) == {*head, key}


@pytest.mark.parametrize('name', ['locatvit', 'locatjumbo', 'locatswin'])
def test_backbones_of_ours_have_nothing_more_to_say(name, tmp_path, monkeypatch):
    golden, told = Golden(name), []
    torch.save(golden.state_dict, tmp_path / 'weights.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    backbone = golden.backbone(init_cfg=init)
    watch_pretrained(backbone)
    monkeypatch.setattr(loading, 'print_log', lambda text, *_, **__: told.append(text))
    backbone.init_weights()
    assert told == [f'backbone weights loaded from {init["checkpoint"]}']


STOCK = [
    dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=8),
        **dict(img_size=16, patch_size=8),
    ),
    dict(
        type='mmseg.BEiT',  # says nothing of what it leaves out
        **dict(embed_dims=8, num_layers=2, num_heads=2, mlp_ratio=1, img_size=16, patch_size=8),
        out_indices=[1],
    ),
]


@pytest.mark.parametrize('cfg', STOCK, ids=lambda cfg: cfg['type'])
@pytest.mark.parametrize('attached', [False, True])
def test_stock_backbones_say_what_their_pretrained_leaves_out(cfg, attached, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(loading, 'print_log', lambda text, *_: told.append(text))
    file = str(tmp_path / 'weights.pth')

    def init(state):
        torch.save(state, file)
        host = {**cfg, 'init_cfg': dict(type='Pretrained', checkpoint=file)}
        whole = dict(type='locat_mm.LocAt', backbone=host) if attached else host
        module = MODELS.build(ConfigDict(whole))
        watch_pretrained(module)
        module.init_weights()
        return module

    state = MODELS.build(ConfigDict(cfg)).state_dict()
    key = next(key for key in state if key.endswith('layers.1.ffn.layers.1.bias'))
    module = init(state)
    computed = 'layers.[0-1].attn.relative_position_index'  # which BEiT does not read
    assert all(text.endswith(f'in part.\n  missing: {computed}') for text in told)
    told.clear()
    assert torch.equal(module.state_dict()[key], state[key])
    rest = {k: v for k, v in state.items() if k != key}
    init({**rest, 'x.y': torch.ones(2)})
    expected = rf'in part.\n  missing: ({re.escape(computed)}, )?{key}\n  unexpected: x.y'
    assert re.search(expected, told.pop())
    with pytest.raises(ValueError, match='Not one key matches'):
        init({f'x.{i}': v for i, v in enumerate(state.values())})
    with pytest.raises(ValueError, match='with NaN or infinity'):
        init({**state, key: state[key] * float('nan')})


def test_a_backbone_of_this_package_keeps_the_start_of_an_attached_gaug(tmp_path):
    host = dict(
        type='LocAtViT', arch=dict(embed_dim=16, depth=2, num_heads=2), img_size=16, gaug=False
    )
    state = MODELS.build(host).state_dict()
    file = str(tmp_path / 'weights.pth')
    torch.save({f'backbone.{key}': value for key, value in state.items()}, file)
    for prefix in (None, 'backbone.'):
        init_cfg = dict(type='Pretrained', checkpoint=file, prefix=prefix)
        module = MODELS.build(dict(type='locat_mm.LocAt', backbone=host, init_cfg=init_cfg))
        start = {k: v.clone() for k, v in module.state_dict().items() if '.gaug.' in k}
        module.init_weights()
        assert start and all(
            torch.equal(value, start[key] if '.gaug.' in key else state[key])
            for key, value in module.state_dict().items()
        )


def broken(state, problem):
    state = dict(state)
    if problem == 'missing':
        del state['blocks.1.mlp.fc1.weight'], state['cls_token']
    elif problem == 'unexpected':
        state['blocks.7.mlp.fc1.weight'] = torch.ones(1)
    elif problem == 'misshapen':
        state['blocks.0.attn.qkv.weight'] = torch.ones(3, 5)
    elif problem == 'pos_embed':
        state['pos_embed'] = torch.ones(1, 19, 24)
    elif problem == 'other':
        state = {f'layer{i}.conv.weight': torch.ones(2) for i in range(3)}
    return state


@pytest.mark.parametrize(
    'problem, message',
    [
        ('missing', 'missing: cls_token, blocks.1.mlp.fc1.weight'),
        ('unexpected', 'unexpected: blocks.7.mlp.fc1.weight'),
        ('misshapen', r'blocks.0.attn.qkv.weight \(3, 5\) instead of \(72, 24\)'),
        ('pos_embed', r'pos_embed \(1, 19, 24\) instead of \(1, 17, 24\)'),
        ('other', 'Not one key matches'),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(problem, message, golden):
    backbone = golden.backbone()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_official(backbone, broken(golden.state_dict, problem))
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_gaug_weights_do_not_pass_for_a_plain_vit(golden):
    message = r'(?s)unexpected: blocks.\[0-1\].attn.gaug.log_var.weight.*set gaug=True'
    with pytest.raises(ValueError, match=message):
        load_official(golden.backbone(gaug=False), golden.state_dict)
    message = r'(?s)missing: blocks.\[0-1\].attn.gaug.log_var.weight.*set gaug=False'
    with pytest.raises(ValueError, match=message):
        load_official(golden.backbone(), Golden('vit').state_dict)


def test_not_strict_loads_what_fits(golden):
    backbone = golden.backbone()
    plain = Golden('vit').state_dict
    load_official(backbone, plain, strict=False)
    assert torch.equal(backbone.pos_embed, plain['pos_embed'])
    for problem in ('misshapen', 'other'):
        with pytest.raises(ValueError, match='does not fit'):
            load_official(backbone, broken(plain, problem), strict=False)


def test_the_mlp_that_jumbos_layers_share_may_stand_once_or_per_layer():
    golden = Golden('locatjumbo')
    once = golden.state_dict
    shared = [key for key in once if key.startswith('jumbo_mlp.')]
    rest = {key: value for key, value in once.items() if key not in shared}
    each = {f'blocks.{i}.{key}': once[key].clone() for i in range(2) for key in shared}
    size = golden.sizes[0]
    for source in (once, {**rest, **each}, {**once, **each}):
        backbone = load_official(golden.backbone(out_type='raw'), source)
        out = backbone(golden[f'in/{size}'])[0]
        torch.testing.assert_close(out, golden[f'features/{size}'], rtol=0, atol=1e-5)
    each['blocks.1.jumbo_mlp.fc1.bias'] += 1
    with pytest.raises(ValueError, match='but blocks.1.jumbo_mlp.fc1.bias differs'):
        load_official(golden.backbone(), {**once, **each})


def test_jumbos_position_embedding_has_no_prefix_when_resized():
    golden = Golden('jumbo')
    backbone = load_official(golden.backbone(img_size=48), golden.state_dict)
    expected = resample_abs_pos_embed(golden.state_dict['pos_embed'], [6, 6], [4, 4], 0)
    torch.testing.assert_close(backbone.pos_embed, expected)


def test_swins_bias_tables_are_resized_as_timm_resizes_them():
    theirs = timm.create_model('swin_tiny_patch4_window7_224', depths=(2, 2), window_size=7)
    arch = dict(embed_dim=96, depths=(2, 2), num_heads=(3, 6))
    ours = LocAtSwin(arch, window_size=4, gaug=False)
    load_official(ours, theirs.state_dict())
    theirs.set_input_size(window_size=4)
    for ours_layer, theirs_layer in zip(ours.layers, theirs.layers, strict=True):
        for attention, other in zip(ours_layer.blocks, theirs_layer.blocks, strict=True):
            torch.testing.assert_close(
                attention.attn.relative_position_bias_table,
                other.attn.relative_position_bias_table,
            )


def test_a_swin_checkpoint_into_a_vit_is_one_short_error(golden):
    swin = Golden('swin').state_dict
    with pytest.raises(ValueError, match='the state dict does not fit LocAtViT') as caught:
        load_official(golden.backbone(), swin)
    message = str(caught.value)
    assert len(message) < 3000
    groups = [line.split(':')[0] for line in message.splitlines()[1:]]
    assert groups == ['  missing', '  unexpected', '  misshapen']
    for key in swin:
        if not key.startswith(('layers.', 'patch_embed.norm.')):
            continue
        assert re.sub(r'\d+', '', key) in re.sub(r'\[[-,\d]+\]|\d+', '', message), key


def test_parts_that_the_target_lacks_may_stay_over(golden):
    extra = {'fc_norm.weight': torch.ones(24), 'norm_patches.bias': torch.ones(24)}
    load_official(golden.backbone(final_norm=False), {**golden.state_dict, **extra})


def test_pretrained_init_is_strict(golden, tmp_path):
    file = tmp_path / 'ours.pth'
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in golden.state_dict.items()}}, file)

    def init(**cfg):
        backbone = golden.backbone(init_cfg=dict(type='Pretrained', checkpoint=str(file), **cfg))
        backbone.init_weights()
        return backbone

    for cfg in ({}, dict(prefix='backbone.'), dict(prefix='backbone')):
        loaded = init(**cfg)
        assert torch.equal(loaded.pos_embed, golden.state_dict['pos_embed'])
    larger = golden.backbone(init_cfg=loaded.init_cfg, img_size=48)
    larger.init_weights()
    expected = resample_abs_pos_embed(loaded.pos_embed, [6, 6], [4, 4], 1)
    torch.testing.assert_close(larger.pos_embed, expected)
    model = build(segmentor_cfg(golden, init_cfg=loaded.init_cfg))
    model.init_weights()
    assert torch.equal(model.backbone.pos_embed, golden.state_dict['pos_embed'])
    with pytest.raises(ValueError, match="no key that starts with 'neck.'"):
        init(prefix='neck')
    with pytest.raises(TypeError, match="unexpected keyword argument 'strict'"):
        init(strict=False)
    both = [dict(type='Pretrained', checkpoint=str(file)), dict(type='Normal', layer='Linear')]
    with pytest.raises(ValueError, match='give it alone'):
        golden.backbone(init_cfg=both).init_weights()
    backbone = golden.backbone(init_cfg=dict(type='Constant', layer='LayerNorm', val=0.5))
    backbone.init_weights()
    assert (backbone.norm.weight == 0.5).all()


def test_init_takes_the_authors_weights_from_the_hub(golden, hub):
    hub.add('sinahmr/locatvit_tiny', golden.state_dict)
    pretrained = dict(type='Pretrained', checkpoint='hf-hub:sinahmr/locatvit_tiny')
    model = build(segmentor_cfg(golden, init_cfg=pretrained))
    model.init_weights()
    size = golden.sizes[0]
    out = model.backbone(golden[f'in/{size}'])[0]
    torch.testing.assert_close(out, golden[f'seg1/{size}'], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match='set gaug=True'):
        golden.backbone(gaug=False, init_cfg=pretrained).init_weights()


def test_a_grid_that_is_not_square_stays_as_it_is(golden, tmp_path):
    """Ours may have any grid; official ones are square. Both have 16 patches here."""
    wide = dict(img_size=(16, 64))
    ours = golden.backbone(**wide).state_dict()
    for name, state in (('whole', {f'backbone.{k}': v for k, v in ours.items()}), ('bare', ours)):
        file = tmp_path / f'{name}.pth'
        torch.save(state, file)
        backbone = golden.backbone(**wide, init_cfg=dict(type='Pretrained', checkpoint=str(file)))
        backbone.init_weights()
        assert torch.equal(backbone.pos_embed, ours['pos_embed']) == (name == 'whole')
