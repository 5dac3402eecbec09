"""The names that importing locat_mm registers with timm, tested as timm tests its own models."""

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.optim import create_optimizer_v2

import locat_mm  # noqa: F401
from tests.support.golden import Golden

FAMILIES = ('locatvit', 'locatregvit', 'locatropevit', 'locatswin')
SIZES = ('tiny', 'small', 'base')
NAMES = [f'{family}_{size}' for family in FAMILIES for size in SIZES]
#: timm's name -> its golden numbers.
GOLDEN = {
    'locatvit_tiny': 'locatvit',
    'locatregvit_tiny': 'locatvit_reg4',
    'locatropevit_tiny': 'locatvit_rope_mixed',
    'locatswin_tiny': 'locatswin',
}


def small(name: str, **kwargs) -> torch.nn.Module:
    """A registered model with few channels, for 32×32 pixels."""
    if 'swin' in name:
        args = dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=2)
        args.update(img_size=64, patch_size=2)
    else:
        args = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)
    return timm.create_model(name, **{**args, **kwargs})


def image(model: torch.nn.Module, batch: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, *model.patch_embed.img_size)


@pytest.fixture(params=GOLDEN, ids=GOLDEN)
def name(request) -> str:
    """One size of every family."""
    return request.param


def test_timm_lists_the_names():
    assert set(timm.list_models('locat*')) == set(NAMES)
    with_weights = {'locatvit_tiny', 'locatvit_base'}
    assert set(timm.list_models('locat*', pretrained=True)) == with_weights
    for weights in with_weights:
        assert timm.get_pretrained_cfg(weights).hf_hub_id == f'sinahmr/{weights}'


@pytest.mark.parametrize('name', NAMES)
def test_default_config_of_the_full_size(name):
    with torch.device('meta'):
        model = timm.create_model(name)
        logits = model(torch.empty(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    cfg, state = model.default_cfg, model.state_dict()
    assert f'{cfg["classifier"]}.weight' in state and f'{cfg["first_conv"]}.weight' in state
    assert cfg['architecture'] == name and cfg['num_classes'] == 1000
    data = resolve_data_config(model=model)
    assert data['input_size'] == (3, 224, 224)
    assert (data['crop_pct'], data['interpolation']) == (0.9, 'bicubic')
    has_half = name.startswith(('locatvit', 'locatregvit'))
    assert (data['mean'] == data['std'] == (0.5, 0.5, 0.5)) == has_half
    with torch.device('meta'):
        plain = timm.create_model(name, gaug=False)
    gaug = {key for key in state if '.gaug.' in key}
    assert gaug and set(plain.state_dict()) == set(state) - gaug


@pytest.mark.parametrize('name, numbers', GOLDEN.items())
def test_logits_are_those_of_the_authors_code(name, numbers):
    golden = Golden(numbers)
    theirs = golden.meta['kwargs']
    keys = {'embed_dim', 'depth', 'depths', 'num_heads', 'window_size', 'num_classes'}
    args = {key: value for key, value in theirs.items() if key in keys}
    args.update(img_size=theirs['img_size'], patch_size=theirs['patch_size'])
    if 'swin' in name:
        args['strict_img_size'] = False
    else:
        args.update(dynamic_img_size=True, dynamic_img_pad=True)
    model = timm.create_model(name, **args)
    if 'swin' in name:
        model.patch_embed.dynamic_img_pad = True
    model.load_state_dict(golden.state_dict)
    model.eval()
    for size in golden.sizes:
        torch.testing.assert_close(
            model(golden[f'in/{size}']), golden[f'logits/{size}'], rtol=0, atol=1e-5
        )


def test_forward_and_backward_reach_every_parameter(name):
    model = small(name, num_classes=7)
    logits = model(image(model))
    assert logits.shape == (2, 7) and logits.isfinite().all()
    logits.mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        model.eval()
        batch = image(model)
        features = model.forward_features(batch)
        torch.testing.assert_close(model.forward_head(features), model(batch))
        assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)


@pytest.mark.parametrize('pool', ['prr', 'avg', ''])
def test_the_classifier_can_be_replaced(name, pool):
    model = small(name, num_classes=7).eval()
    batch, before = image(model), model.num_features
    refined = model.forward_head(model.forward_features(batch), pre_logits=True)
    model.reset_classifier(5, pool)
    assert model.get_classifier().out_features == model.num_classes == 5
    model.reset_classifier(0, pool)
    assert not list(model.get_classifier().parameters()) and model.num_features == before
    output = model(batch)
    if pool == '':
        assert output.ndim > 2 and torch.equal(output, model.forward_features(batch))
    elif pool == 'prr':
        torch.testing.assert_close(output, refined)
    else:
        assert output.shape == refined.shape and not torch.allclose(output, refined)


def test_other_arguments_of_timm(name):
    model = small(name, num_classes=9, in_chans=4, drop_rate=0.1, drop_path_rate=0.2)
    assert model(image(model, channels=4)).shape == (2, 9)
    model.set_grad_checkpointing()
    model(image(model, channels=4)).sum().backward()
    plain = small(name, gaug=False, global_pool='avg')
    assert not any('gaug' in key for key in plain.state_dict())
    with pytest.raises(ValueError, match='unknown.*fastest'):
        small(name, attention_backend='fastest')
    half = small(name, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    groups = create_optimizer_v2(model, 'sgd', lr=0.1, layer_decay=0.5).param_groups
    assert len({group['lr_scale'] for group in groups}) > 3


def test_features(name):
    torch.manual_seed(0)
    whole = small(name).eval()
    torch.manual_seed(0)
    model = small(name, features_only=True).eval()
    batch = image(whole)
    maps = model(batch)
    assert [m.shape[3 if 'swin' in name else 1] for m in maps] == model.feature_info.channels()
    _, expected = whole.forward_intermediates(batch, indices=model.feature_info.out_indices)
    for got, want in zip(maps, expected, strict=True):
        torch.testing.assert_close(got.permute(0, 3, 1, 2) if 'swin' in name else got, want)
    (last,) = small(name, features_only=True, out_indices=[-1])(batch)
    assert last.shape == maps[-1].shape


def test_other_image_sizes(name):
    model = small(name).eval()
    if 'swin' in name:
        model.set_input_size((128, 64))
        shape = (128, 64)
    else:
        model.set_input_size((64, 32))
        shape = (64, 32)
    assert model(torch.randn(1, 3, *shape)).shape == (1, 1000)


def test_weights_that_are_not_published(name):
    if name != 'locatvit_tiny':
        with pytest.raises(RuntimeError, match=f'No pretrained weights exist for {name}'):
            timm.create_model(name, pretrained=True)
