"""Exported files of every backbone family and of attached hosts, against PyTorch."""

import pytest
import timm
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils._pytree import tree_leaves

import locat_mm
from locat_mm.deployment import ImageNetwork, compare, export, load, other_sizes, trace
from locat_mm.registry import MODELS

VIT = dict(
    arch=dict(embed_dim=24, depth=1, num_heads=3), img_size=32, patch_size=8, out_type='featmap'
)
SWIN = dict(
    arch=dict(embed_dim=8, depths=(2, 1), num_heads=(1, 2)),
    img_size=32,
    patch_size=4,
    window_size=4,
    out_type='featmap',
    out_indices=(0, 1),
)
FAMILIES = {
    'ViT': dict(type='LocAtViT', **VIT),
    'RegViT': dict(type='LocAtViT', num_registers=2, **VIT),
    'RoPEViT': dict(type='LocAtRoPEViT', **VIT),
    'Jumbo': dict(type='LocAtJumbo', **VIT),
    'Swin': dict(type='LocAtSwin', **SWIN),
}
MM_ARCH = dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48)
MMSEG_VIT = dict(embed_dims=24, num_layers=1, num_heads=3, img_size=(32, 32), patch_size=8)
MM_SWIN = dict(embed_dims=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4)
#: scope and config of a backbone of OpenMMLab; timm's are built by TIMMBackbone.
ATTACHED = {
    'timm ViT': (
        'mmseg',
        dict(
            type='locat_mm.TIMMBackbone',
            model_name='vit_base_patch16_224',
            img_size=32,
            patch_size=8,
            embed_dim=24,
            depth=1,
            num_heads=3,
        ),
    ),
    'timm DINOv3': (
        'mmseg',
        dict(
            type='locat_mm.TIMMBackbone',
            model_name='vit_small_patch16_dinov3',
            img_size=32,
            patch_size=8,
            embed_dim=48,
            depth=1,
            num_heads=3,
        ),
    ),
    'mmpretrain ViT': (
        'mmpretrain',
        dict(
            type='VisionTransformer',
            arch=MM_ARCH,
            img_size=32,
            patch_size=8,
            out_type='featmap',
            with_cls_token=False,
        ),
    ),
    'mmseg ViT': ('mmseg', dict(type='VisionTransformer', **MMSEG_VIT)),
    'mmseg Swin': ('mmseg', dict(type='SwinTransformer', **MM_SWIN)),
    'mmpretrain Swin': (
        'mmpretrain',
        dict(
            type='SwinTransformer',
            arch=MM_SWIN | dict(window_size=None),
            window_size=4,
            pad_small_map=True,
        ),
    ),
}
ATTACHED['mmpretrain Swin'][1]['arch'].pop('window_size')


def all_but(names, sample):
    """All names as parameters; make test runs the sample, make test-export runs all."""
    return [n if n == sample else pytest.param(n, marks=pytest.mark.export) for n in names]


class Host(nn.Module):
    """A backbone in a model, as a segmentor has it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.data_preprocessor = BaseDataPreprocessor()


def network_of(scope: str, backbone: dict) -> ImageNetwork:
    init_default_scope(scope)
    with MODELS.switch_scope_and_registry(scope) as registry:
        built = registry.build(backbone)
    for name, parameter in built.named_parameters():
        if 'gaug' in name and parameter.ndim > 1:  # Gaussians that differ between queries
            nn.init.normal_(parameter, std=0.3)
        if 'pos_embed' in name:
            nn.init.normal_(parameter, std=0.5)
    return ImageNetwork(Host(built), part='backbone')


def check(network: ImageNetwork, tmp_path, file_format: str = 'onnx', static: bool = False):
    size = (32, 48)
    program = trace(network, size, static)
    file = tmp_path / ('x.onnx' if file_format == 'onnx' else 'x.pt2')
    with torch.no_grad():
        outputs = tree_leaves(network(torch.zeros(1, 3, *size)))
    export(program, file_format, file, network.output_names(outputs), {'note': 'a test'})
    run = load(file, file_format)
    for height, width in [size] if static else [(32, 32), (16, 72), *other_sizes(network, size)]:
        for batch in (1, 3):
            found = compare(network, run, (batch, 3, height, width), repeats=1)
            assert found.difference < 2e-5 * found.scale, (height, width, batch)


@pytest.mark.parametrize(
    'gaug',
    [pytest.param(False, id='plain', marks=pytest.mark.export), pytest.param(True, id='LocAt')],
)
@pytest.mark.parametrize('family', all_but(FAMILIES, 'ViT'))
def test_family(family, gaug, tmp_path):
    backbone = dict(FAMILIES[family], gaug=gaug)
    backbone['type'] = f'locat_mm.{backbone["type"]}'
    check(network_of('mmseg', backbone), tmp_path, static=family == 'Swin')


@pytest.mark.export
@pytest.mark.parametrize('host', ATTACHED)
def test_attached(host, tmp_path):
    scope, backbone = ATTACHED[host]
    network = network_of(scope, dict(type='locat_mm.LocAt', backbone=backbone))
    check(network, tmp_path, static='Swin' in host)


@pytest.mark.export
def test_a_fixed_gaussian(tmp_path):
    scope, backbone = ATTACHED['timm ViT']
    constants = dict(start='fixed', variance=2.0, alpha=4.0, units='image')
    network = network_of(scope, dict(type='locat_mm.LocAt', backbone=backbone, **constants))
    check(network, tmp_path)


def test_torch_format(tmp_path):
    backbone = dict(FAMILIES['ViT'], type='locat_mm.LocAtViT')
    check(network_of('mmseg', backbone), tmp_path, 'torch')


@pytest.mark.export
@pytest.mark.parametrize('file_format', ['onnx', 'torch'])
def test_rotated_kernels(file_format, tmp_path):
    backbone = dict(FAMILIES['ViT'], type='locat_mm.LocAtViT', kernel='rotated')
    check(network_of('mmseg', backbone), tmp_path, file_format)


def test_windows_need_a_fixed_size():
    network = network_of('mmseg', dict(SWIN, type='locat_mm.LocAtSwin'))
    with pytest.raises(ValueError, match='--size HEIGHT WIDTH --static'):
        trace(network, (32, 32))


def test_a_trainable_model_exports_to_onnx_with_gradients_enabled(tmp_path):
    model = timm.create_model(
        'vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3
    )
    locat_mm.attach(model)
    assert torch.is_grad_enabled() and all(p.requires_grad for p in model.parameters())
    image = torch.randn(2, 3, 32, 32)
    program = torch.onnx.export(model.eval(), (image,), dynamo=True, verbose=False)
    program.save(tmp_path / 'x.onnx')
    (found,) = load_any(tmp_path / 'x.onnx', image)
    torch.testing.assert_close(torch.from_numpy(found), model(image).detach(), rtol=0, atol=2e-5)


def load_any(file, image):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})


def test_the_comparison_finds_one_wrong_number():
    network = network_of('mmseg', dict(FAMILIES['ViT'], type='locat_mm.LocAtViT'))

    def wrong(image):
        with torch.no_grad():
            outputs = [out.numpy().copy() for out in network(image)]
        outputs[0].flat[7] += 0.25
        return outputs

    found = compare(network, wrong, (2, 3, 32, 48), repeats=1)
    assert found.difference == pytest.approx(0.25, rel=1e-5)
    with pytest.raises(ValueError, match='PyTorch'):
        compare(network, lambda image: [out[:1] for out in wrong(image)], (2, 3, 32, 48))
