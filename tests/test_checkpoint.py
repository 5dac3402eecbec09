"""Loading official weights: what fits, what does not, and what is never executed."""

import argparse
import os

import pytest
import timm
import torch
from golden import Golden
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from locat_mm import load_official
from locat_mm.checkpoint import read_state_dict
from locat_mm.models import LocAtViT
from locat_mm.registry import MODELS

SMALL = dict(arch=dict(embed_dim=24, depth=2, num_heads=3), img_size=32, patch_size=8)


@pytest.fixture
def golden():
    return Golden('locatvit')


def segmentor(golden, **backbone):
    return MODELS.build(
        ConfigDict(
            type='mmseg.EncoderDecoder',
            backbone=dict(
                type='locat_mm.LocAtViT',
                out_type='featmap',
                final_norm=False,
                frozen=True,
                **golden.vit_kwargs(),
                **backbone,
            ),
            decode_head=dict(
                type='locat_mm.LinearSegHead', in_channels=24, channels=8, num_classes=4
            ),
            train_cfg=None,
            test_cfg=dict(mode='whole'),
        )
    ).eval()


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
    model = segmentor(golden)
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


def test_reading_leaves_torchs_allowlist_as_it_was(golden, tmp_path):
    file = tmp_path / 'weights.pth'
    torch.save(golden.state_dict, file)
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        before = set(map(repr, torch.serialization.get_safe_globals()))
        read_state_dict(file)
        assert set(map(repr, torch.serialization.get_safe_globals())) == before
    finally:
        torch.serialization.clear_safe_globals()


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
    with pytest.raises(ValueError, match='unexpected: blocks.0.attn.gaug.log_var.weight'):
        load_official(golden.backbone(gaug=False), golden.state_dict)
    with pytest.raises(ValueError, match='missing: blocks.0.attn.gaug.log_var.weight'):
        load_official(golden.backbone(), Golden('vit').state_dict)


def test_not_strict_loads_what_fits(golden):
    backbone = golden.backbone()
    plain = Golden('vit').state_dict
    load_official(backbone, plain, strict=False)
    assert torch.equal(backbone.pos_embed, plain['pos_embed'])
    for problem in ('misshapen', 'other'):
        with pytest.raises(ValueError, match='does not fit'):
            load_official(backbone, broken(plain, problem), strict=False)


def test_layer_shared_weights_are_accepted_in_either_form():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.Linear(2, 3)
            self.blocks = nn.ModuleList([nn.ModuleDict({'mlp': self.mlp}) for _ in range(2)])

    weights = {'weight': torch.randn(3, 2), 'bias': torch.randn(3)}
    once = {f'mlp.{k}': v for k, v in weights.items()}
    each = {f'blocks.{i}.mlp.{k}': v.clone() for i in range(2) for k, v in weights.items()}
    for source in (once, each, {**once, **each}):
        model = load_official(Shared(), source)
        assert torch.equal(model.mlp.weight, weights['weight'])
        assert model.blocks[1]['mlp'] is model.mlp
    with pytest.raises(ValueError, match='differs in the source: .*blocks.1.mlp.bias'):
        load_official(Shared(), {**each, 'blocks.1.mlp.bias': torch.ones(3)})


def test_parts_that_the_target_lacks_may_stay_over(golden):
    extra = {'fc_norm.weight': torch.ones(24), 'norm_patches.bias': torch.ones(24)}
    load_official(golden.backbone(final_norm=False), {**golden.state_dict, **extra})


class Hostile:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('where', ['top', 'beside'])
def test_no_pickle_is_executed(where, golden, tmp_path):
    hostile = Hostile()
    hostile.path = str(tmp_path / 'executed')
    file = tmp_path / 'weights.pth'
    torch.save(hostile if where == 'top' else {'state_dict': golden.state_dict, 'x': hostile}, file)
    with pytest.raises(ValueError, match='nothing else is executed'):
        load_official(golden.backbone(), file)
    assert not (tmp_path / 'executed').exists()


class Fetch:
    """Pickles as ``getattr(owner, name)``."""

    def __init__(self, owner, name):
        self.fetched = owner, name

    def __reduce__(self):
        return getattr, self.fetched


def test_getattr_fetches_mmengines_methods_alone(golden, tmp_path):
    file = tmp_path / 'weights.pth'
    torch.save({'state_dict': golden.state_dict, 'x': Fetch(HistoryBuffer, 'mean')}, file)
    assert set(read_state_dict(file)) == set(golden.state_dict)
    for owner, name in ((HistoryBuffer, '__init__'), (torch.Tensor, 'mean')):
        torch.save({'state_dict': golden.state_dict, 'x': Fetch(owner, name)}, file)
        with pytest.raises(ValueError, match='nothing else is executed'):
            read_state_dict(file)


def test_unreadable_files_are_named(golden, tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*nowhere.pth'):
        read_state_dict(tmp_path / 'nowhere.pth')
    whole = tmp_path / 'whole.pth'
    torch.save(golden.state_dict, whole)
    for suffix in ('.pth', '.safetensors'):
        cut = tmp_path / f'cut{suffix}'
        cut.write_bytes(whole.read_bytes()[:500])
        with pytest.raises(ValueError, match=f'cut{suffix} cannot be read'):
            read_state_dict(cut)
    for garbage in (b'.', b't.', b'(.', b'\x80\x02}q'):
        cut.with_suffix('.pth').write_bytes(garbage)
        with pytest.raises(ValueError, match='cannot be read'):
            read_state_dict(cut.with_suffix('.pth'))
    torch.save([1, 2], whole)
    with pytest.raises(ValueError, match='holds no state dict: list'):
        read_state_dict(whole)
    with pytest.raises(TypeError, match='path or a state dict, got int'):
        load_official(golden.backbone(), 3)


def test_pretrained_init_is_strict(golden, tmp_path):
    file = tmp_path / 'ours.pth'
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in golden.state_dict.items()}}, file)

    def init(**cfg):
        backbone = golden.backbone(init_cfg=dict(type='Pretrained', checkpoint=str(file), **cfg))
        backbone.init_weights()
        return backbone

    loaded = init(prefix='backbone.')
    assert torch.equal(loaded.pos_embed, golden.state_dict['pos_embed'])
    larger = golden.backbone(init_cfg=loaded.init_cfg, img_size=48)
    larger.init_weights()
    expected = resample_abs_pos_embed(loaded.pos_embed, [6, 6], [4, 4], 1)
    torch.testing.assert_close(larger.pos_embed, expected)
    model = segmentor(golden, init_cfg=loaded.init_cfg)
    model.init_weights()
    assert torch.equal(model.backbone.pos_embed, golden.state_dict['pos_embed'])
    with pytest.raises(ValueError, match="no key that starts with 'neck.'"):
        init(prefix='neck')
    with pytest.raises(ValueError, match='Not one key matches'):
        init()
    both = [dict(type='Pretrained', checkpoint=str(file)), dict(type='Normal', layer='Linear')]
    with pytest.raises(ValueError, match='give it alone'):
        golden.backbone(init_cfg=both).init_weights()
    backbone = golden.backbone(init_cfg=dict(type='Constant', layer='LayerNorm', val=0.5))
    backbone.init_weights()
    assert (backbone.norm.weight == 0.5).all()
