"""TIMMBackbone against timm itself, host by host, and inside mmseg and mmpretrain."""

import mmpretrain.models
import mmseg.models
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from safetensors.torch import save_file
from timm.optim import param_groups_layer_decay
from torch import nn

from locat_mm import attach
from locat_mm.models import TIMMBackbone
from locat_mm.registry import MODELS

TINY = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
ROTARY = {**TINY, 'embed_dim': 48}
SWIN = dict(img_size=64, window_size=4, embed_dim=8, depths=(2, 1, 1), num_heads=(1, 2, 4))
HOSTS = {
    'vit': ('vit_base_patch16_224', TINY),
    'clip': ('vit_base_patch16_clip_224', TINY),
    'dinov2': ('vit_small_patch14_reg4_dinov2', TINY),
    'siglip': ('vit_base_patch16_siglip_224', TINY),
    'deit': ('deit_tiny_distilled_patch16_224', TINY),
    'dinov3': ('vit_small_patch16_dinov3', ROTARY),
    'eva02': ('eva02_tiny_patch14_224', ROTARY),
    'beit': ('beit_base_patch16_224', TINY),
    'swin': ('swin_tiny_patch4_window7_224', SWIN),
}
NUM_PREFIX = dict(dinov2=5, siglip=0, deit=2, dinov3=5, swin=0)  # else 1
NO_CLASS_TOKEN = ('siglip', 'swin')
FIXED_SIZE = ('beit',)
#: What these pool is the mean patch; forward of the others gives other things.
POOL_PATCHES = ('eva02', 'beit', 'swin')


@pytest.fixture(params=HOSTS)
def host(request):
    return request.param


def make(host, **kwargs):
    name, small = HOSTS[host]
    return TIMMBackbone(name, **{**small, **kwargs}).eval()


def make_theirs(host, ours=None, **kwargs):
    """The whole model as timm builds it; its weights are given to ours."""
    name, small = HOSTS[host]
    if host not in FIXED_SIZE:
        kwargs.setdefault('dynamic_img_size', True)
    theirs = timm.create_model(name, **{**small, **kwargs}).eval()
    for parameter in theirs.parameters():  # norms and embeddings that start at 1 and 0 too
        parameter.data += 0.1 * torch.randn_like(parameter)
    if ours is not None:
        given = theirs.state_dict()
        ours.model.load_state_dict({key: given[key] for key in ours.model.state_dict()})
    return theirs


def make_image(host, num_images=2):
    side = HOSTS[host][1]['img_size']
    return torch.randn(num_images, 3, side, side if host in FIXED_SIZE else side + 16)


def out_types(host):
    return [kind for kind in TIMMBackbone.OUT_TYPES if (kind, host) not in NEVER]


NEVER = [('cls_token', host) for host in NO_CLASS_TOKEN]


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_last_output_is_timms(host):
    image, num_prefix = make_image(host), NUM_PREFIX.get(host, 1)
    for kind in out_types(host):
        ours = make(host, out_type=kind)
        theirs = make_theirs(host, ours)
        (out,) = ours(image)
        tokens = theirs.forward_features(image)
        tokens = tokens.flatten(1, -2)  # Swin's is a map, channels last
        patches = tokens[:, num_prefix:]
        if kind == 'raw':
            assert_close(out, tokens)
            assert ours.num_prefix_tokens == num_prefix
        elif kind == 'featmap':
            assert_close(out.flatten(2).mT, patches)
            reduction = theirs.feature_info[-1]['reduction']
            assert list(out.shape[-2:]) == [size // reduction for size in image.shape[-2:]]
        elif kind == 'cls_token':
            assert_close(out, getattr(theirs, 'fc_norm', nn.Identity())(tokens[:, 0]))
        else:
            theirs.reset_classifier(0)
            assert_close(out, theirs(image) if host in POOL_PATCHES else patches.mean(1))


@torch.no_grad()
@pytest.mark.parametrize('final_norm', [False, True])
def test_outputs_of_blocks_are_timms(host, final_norm):
    ours = make(host, out_indices=[0, -1], out_type='featmap', final_norm=final_norm)
    theirs, image = make_theirs(host, ours), make_image(host)
    outputs = ours(image)
    expected, last = (
        theirs.forward_intermediates(image, [0, 2], norm=norm, intermediates_only=True)
        for norm in (False, final_norm)
    )
    assert_close(outputs[0], expected[0])
    assert_close(outputs[1], last[1])
    assert ours.out_channels == tuple(out.shape[1] for out in outputs)
    assert ours.embed_dims == outputs[-1].shape[1]
    assert (outputs[1] - expected[1]).abs().max() > 0.1 or not final_norm or host in FC_NORM


FC_NORM = ('eva02', 'beit')  # norm what is pooled, not the tokens


@torch.no_grad()
def test_a_class_token_of_an_earlier_block_is_not_normed():
    for host in ('vit', 'beit'):
        ours = make(host, out_indices=[1, 2], out_type='cls_token')
        theirs, image = make_theirs(host, ours), make_image(host)
        (_, prefix), _ = theirs.forward_intermediates(
            image, [1, 2], return_prefix_tokens=True, intermediates_only=True
        )
        assert_close(ours(image)[0], prefix[:, 0])


@torch.no_grad()
@pytest.mark.parametrize('host', ['vit', 'eva02', 'dinov3', 'swin'])
def test_sides_that_are_no_multiple_of_the_patch_are_padded(host):
    ours = make(host)
    theirs = make_theirs(host, ours)
    image = torch.randn(1, 3, 61, 93)
    padded = nn.functional.pad(image, (0, 3, 0, 3))
    (expected,) = theirs.forward_intermediates(padded, 1, norm=True, intermediates_only=True)
    assert_close(ours(image)[0], expected)


def test_sizes_that_a_host_cannot_take_are_refused_by_timm():
    with pytest.raises(AssertionError, match="Input width.* doesn't match model"):
        make('beit')(torch.randn(1, 3, 32, 40))
    with pytest.raises(AssertionError, match="Input width.* doesn't match model"):
        make('vit', dynamic_img_size=False)(torch.randn(1, 3, 32, 40))
    with pytest.raises(AssertionError, match='should be divisible by patch size'):
        make('vit', dynamic_img_pad=False)(torch.randn(1, 3, 32, 41))


def test_a_seed_gives_timms_weights(host):
    name, small = HOSTS[host]
    torch.manual_seed(3)
    ours = make(host).model.state_dict()
    torch.manual_seed(3)
    theirs = timm.create_model(name, **small).state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_every_trainable_parameter_gets_a_gradient(host):
    """Or DistributedDataParallel would hang."""
    image = make_image(host, 1)
    cases = [dict(out_type=kind) for kind in out_types(host)]
    cases += [dict(out_indices=[0]), dict(final_norm=False), dict(grad_checkpointing=True)]
    for case in cases:
        model = attach(make(host, **case)).train()
        sum(out.square().sum() for out in model(image)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad and parameter.grad is not None, (case, name)


@pytest.mark.parametrize('host', ['vit', 'eva02', 'swin'])
def test_recomputing_gives_the_same_gradients(host):
    stored, recomputed, image = make(host), make(host, grad_checkpointing=True), make_image(host)
    recomputed.load_state_dict(stored.state_dict())
    for model, num_runs in ((stored, 1), (recomputed, 2)):
        runs = []
        attn = next(m for n, m in model.named_modules() if n.endswith('blocks.0.attn'))
        attn.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        model(image)[0].square().sum().backward()
        assert len(runs) == num_runs
    for ours, expected in zip(recomputed.parameters(), stored.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_frozen_survives_train_and_builds_no_graph(host):
    options = dict(drop_path_rate=0.9) if host != 'beit' else dict(pos_drop_rate=0.9)
    name, small = HOSTS[host]
    model = TIMMBackbone(name, frozen=True, **{**small, **options})
    assert not any(m.training for m in model.modules())
    holder = nn.ModuleList([model]).train()
    assert not any(m.training for m in holder[0].modules())
    assert not any(p.requires_grad for p in model.parameters())
    image = make_image(host).requires_grad_()
    first, second = model(image)[0], model(image)[0]
    assert not first.requires_grad and torch.equal(first, second)


# Weights


def save(state, path):
    save = save_file if path.suffix == '.safetensors' else torch.save
    save(state, path)
    return dict(type='Pretrained', checkpoint=str(path))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_file_of_timm_is_loaded(host, suffix, tmp_path):
    """With its head, and whatever else the outputs do not need."""
    theirs = make_theirs(host)
    init_cfg = save(theirs.state_dict(), tmp_path / f'timm{suffix}')
    for case in (dict(), dict(out_indices=[0], out_type='raw'), dict(final_norm=False)):
        ours = make(host, init_cfg=init_cfg, **case)
        ours.init_weights()
        expected = theirs.state_dict()
        for key, value in ours.model.state_dict().items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize('prefix', [None, 'backbone.', 'backbone.model'])
@pytest.mark.parametrize('locat', [False, True], ids=['plain', 'locat'])
def test_a_checkpoint_of_openmmlab_is_loaded(prefix, locat, tmp_path):
    def build(**kwargs):
        backbone = dict(type='locat_mm.TIMMBackbone', model_name=HOSTS['vit'][0], **kwargs)
        return MODELS.build(dict(type='LocAt', backbone=backbone, gaug=locat))

    # Not square, but of as many patches as a square.
    small = {**TINY, 'img_size': (16, 64)}
    trained = build(**small)
    for parameter in trained.parameters():
        parameter.data.normal_()
    state = {f'backbone.{key}': value for key, value in trained.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(3, 24)
    init_cfg = save(dict(state_dict=state), tmp_path / 'epoch_1.pth')
    if prefix:
        init_cfg['prefix'] = prefix
    ours = build(out_indices=[0, 1], init_cfg=init_cfg, **small)
    ours.init_weights()
    own = ours.state_dict()
    assert any('.gaug.' in key for key in own) == locat
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in own.items())


def test_a_file_of_timm_under_locat_leaves_gaug_at_its_start(tmp_path):
    init_cfg = save(make_theirs('dinov2').state_dict(), tmp_path / 'timm.pth')
    name, small = HOSTS['dinov2']
    ours, theirs = attach(TIMMBackbone(name, init_cfg=init_cfg, **small)), make('dinov2')
    gaug = {key: value.clone() for key, value in ours.state_dict().items() if '.gaug.' in key}
    ours.init_weights()
    theirs.model.load_state_dict(torch.load(init_cfg['checkpoint'], weights_only=True), False)
    own, expected = ours.state_dict(), theirs.state_dict()
    assert gaug and all(torch.equal(own[key], value) for key, value in gaug.items())
    assert all(torch.equal(own[key], value) for key, value in expected.items())


def test_position_embeddings_are_resized_as_timm_does(tmp_path):
    theirs = make_theirs('dinov2')
    init_cfg = save(theirs.state_dict(), tmp_path / 'timm.pth')
    ours = make('dinov2', img_size=(48, 64), init_cfg=init_cfg)
    ours.init_weights()
    theirs.set_input_size((48, 64))
    assert_close(ours.model.pos_embed, theirs.pos_embed)


def test_files_that_do_not_fit_are_refused(tmp_path):
    init_cfg = save(make_theirs('vit').state_dict(), tmp_path / 'timm.pth')
    with pytest.raises(ValueError, match=r'does not fit VisionTransformer[\s\S]*reg_token'):
        make('dinov2', init_cfg=init_cfg).init_weights()
    with pytest.raises(ValueError, match=r'unexpected: blocks\.2\.'):
        make('vit', depth=2, init_cfg=init_cfg).init_weights()
    with pytest.raises(ValueError, match=r"no key that starts with 'backbone\.'"):
        make('vit', init_cfg={**init_cfg, 'prefix': 'backbone.'}).init_weights()
    partial = make_theirs('vit').state_dict()
    del partial['blocks.1.attn.qkv.weight']
    init_cfg = save(partial, tmp_path / 'partial.pth')
    with pytest.raises(ValueError, match=r'missing: blocks\.1\.attn\.qkv\.weight'):
        make('vit', init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('host', ['vit', 'siglip', 'swin'])
def test_what_timm_has_loaded_stays(host, tmp_path):
    """pretrained=True, with a file in the place of the hub; mmengine initialises afterwards."""
    theirs = make_theirs(host)
    save(theirs.state_dict(), tmp_path / 'timm.safetensors')
    overlay = dict(file=str(tmp_path / 'timm.safetensors'), input_size=(3, 32, 32))
    ours = make(host, pretrained=True, pretrained_cfg_overlay=overlay)
    assert ours.is_init  # or a frozen one would be called random
    ours.init_weights()
    own = ours.model.state_dict()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in own.items())


def test_other_initialisers_are_mmengines():
    model = make('vit', init_cfg=dict(type='Constant', layer='Linear', val=0.5))
    model.init_weights()
    assert (model.model.blocks[1].mlp.fc1.weight == 0.5).all()
    assert (model.model.pos_embed != 0.5).all()


# LocAt around it


@torch.no_grad()
def test_locat_starts_where_the_host_stands(host):
    plain, image = make(host), make_image(host)
    make_theirs(host, plain)
    name, small = HOSTS[host]
    backbone = dict(type='locat_mm.TIMMBackbone', model_name=name, **small)
    locat = MODELS.build(dict(type='locat_mm.LocAt', backbone=backbone)).eval()
    missing, unexpected = locat.load_state_dict(plain.state_dict(), strict=False)
    assert missing and all('.gaug.' in key for key in missing) and not unexpected
    assert_close(locat(image)[0], plain(image)[0])
    for key, parameter in locat.named_parameters():
        if '.gaug.' in key:
            parameter += 1.0
    assert (locat(image)[0] - plain(image)[0]).abs().max() > 1e-3


def test_gaug_enters_the_blocks_that_run_only():
    model = attach(make('vit', out_indices=[0, 1]))
    assert {key.split('.')[2] for key in model.state_dict() if '.gaug.' in key} == {'0', '1'}


# In OpenMMLab


def train_once(model, inputs, samples):
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)
    assert losses['loss'].isfinite()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize('locat', [False, True], ids=['plain', 'locat'])
@pytest.mark.parametrize('host, frozen', [('dinov2', False), ('swin', False), ('siglip', True)])
def test_segmentor_trains(host, frozen, locat):
    name, small = HOSTS[host]
    backbone = dict(type='locat_mm.TIMMBackbone', model_name=name, out_indices=[0, 1, 2], **small)
    backbone['frozen'] = frozen
    if locat:
        backbone = dict(type='locat_mm.LocAt', backbone=backbone)
    channels = [8, 16, 32] if host == 'swin' else [24] * 3
    head = dict(
        **dict(type='UPerHead', in_channels=channels, in_index=[0, 1, 2], pool_scales=(1, 2)),
        **dict(channels=8, num_classes=3, norm_cfg=dict(type='BN')),
    )
    cfg = dict(
        type='EncoderDecoder', backbone=backbone, decode_head=head, test_cfg=dict(mode='whole')
    )
    cfg['data_preprocessor'] = dict(type='SegDataPreProcessor', size=(32, 48))
    init_default_scope('mmseg')
    model = MMSEG_MODELS.build(Config(cfg).to_dict())
    model.init_weights()
    samples = []
    for _ in range(2):
        sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 32, 48))))
        sample.set_metainfo(dict(img_shape=(32, 48), ori_shape=(32, 48)))
        samples.append(sample)
    inputs = [torch.randn(3, 32, 48) for _ in samples]
    moved = train_once(model, inputs, samples)
    assert 'decode_head.conv_seg.weight' in moved
    assert any(name.startswith('backbone.') for name in moved) == (not frozen)
    assert any('.gaug.' in name for name in moved) == (locat and not frozen)
    logits = model.eval().encode_decode(torch.randn(1, 3, 45, 32), [dict(img_shape=(45, 32))])
    assert logits.shape == (1, 3, 45, 32)


@pytest.mark.parametrize('prr', [False, True], ids=['linear', 'prr'])
def test_classifier_trains(prr):
    name, small = HOSTS['dinov2']
    backbone = dict(type='locat_mm.TIMMBackbone', model_name=name, **small)
    backbone['out_type'] = 'raw' if prr else 'cls_token'
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='locat_mm.LocAt', backbone=backbone),
        neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=3) if prr else None,
        head=dict(type='LinearClsHead', num_classes=4, in_channels=24),
    )
    init_default_scope('mmpretrain')
    model = MMPRETRAIN_MODELS.build(Config(cfg).to_dict())
    model.init_weights()
    samples = [DataSample().set_gt_label(label) for label in (1, 3)]
    moved = train_once(model, torch.randn(2, 3, 32, 48), samples)
    first, last = (f'backbone.model.blocks.{i}.attn.gaug.' for i in (0, 2))
    assert any(name.startswith(first) for name in moved)
    assert any(name.startswith(last) for name in moved) == prr  # [CLS] alone gives it no gradient
    assert model.head(model.extract_feat(torch.randn(2, 3, 48, 32))).shape == (2, 4)
    assert model.get_layer_depth('backbone.model.cls_token')[0] == 0


@pytest.mark.parametrize(
    'registry, theirs',
    [
        (MMSEG_MODELS, mmseg.models.backbones.TIMMBackbone),
        (MMPRETRAIN_MODELS, mmpretrain.models.backbones.TIMMBackbone),
    ],
    ids=['mmseg', 'mmpretrain'],
)
def test_names(registry, theirs):
    assert registry.get('locat_mm.TIMMBackbone') is TIMMBackbone
    assert registry.get('TIMMBackbone') is theirs
    assert 'TIMMBackbone' not in ROOT_MODELS.module_dict
    # What is looked up for LocAt is what the config would get without it.
    built = registry.build(dict(type='TIMMBackbone', model_name='test_vit', pretrained=False))
    assert type(built) is theirs


@pytest.mark.parametrize('host', ['vit', 'dinov2', 'swin'])
def test_layer_depths_are_timms(host):
    """Layer-wise decay as timm's own, for a host with its head."""
    theirs, ours = make_theirs(host, num_classes=3), attach(make(host))
    groups = param_groups_layer_decay(theirs, layer_decay=0.5)
    names = {id(p): name for name, p in theirs.named_parameters()}
    scales = {names[id(p)]: group['lr_scale'] for group in groups for p in group['params']}
    for name, _ in ours.model.named_parameters():
        depth, total = ours.get_layer_depth(f'backbone.model.{name}', 'backbone.')
        layer = name.partition('.gaug.')[0]
        expected = {scale for key, scale in scales.items() if key.startswith(layer)}
        assert {0.5 ** (total - 1 - depth)} == expected, name
    assert ours.get_layer_depth('decode_head.conv.weight', 'backbone.') == (total - 1, total)


@pytest.mark.parametrize(
    'model_name, kwargs, message',
    [
        ('resnet18', {}, 'resnet18 is a ResNet, which has no attention'),
        ('vit_enormous', {}, "timm .* has no model 'vit_enormous'"),
        ('test_vit2', dict(out_type='cls_token'), 'test_vit2 gives no class token'),
        (HOSTS['swin'][0], dict(out_type='cls_token', **SWIN), 'gives no class token'),
        (HOSTS['siglip'][0], dict(out_type='cls_token', **TINY), 'siglip_224 gives no class token'),
        ('test_vit', dict(out_type='tokens'), "unknown out_type 'tokens'"),
        ('test_vit', dict(out_indices=6), r'out_indices=6 must be within 0\.\.5'),
        ('test_vit', dict(out_indices=[3, 1]), 'must be ascending'),
        ('test_vit', dict(num_classes=10), 'num_classes=10 is not for a backbone'),
        ('test_vit', dict(features_only=True), 'features_only=True is not for a backbone'),
        (
            'test_vit',
            dict(pretrained=True, init_cfg=dict(type='Pretrained', checkpoint='a.pth')),
            'both say where weights come from',
        ),
    ],
)
def test_mistakes_are_named(model_name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TIMMBackbone(model_name, **kwargs)


def test_a_wrong_option_is_timms_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'window'"):
        make('vit', window=7)


def test_a_file_is_not_for_pretrained():
    with pytest.raises(TypeError, match="must be a bool, got 'vit.pth'; files are for init_cfg"):
        make('vit', pretrained='vit.pth')


def test_a_host_without_forward_intermediates_is_named(monkeypatch):
    monkeypatch.delattr(timm.models.Beit, 'forward_intermediates')
    with pytest.raises(ValueError, match='is a Beit, which has no forward_intermediates'):
        TIMMBackbone('beitv2_base_patch16_224')
