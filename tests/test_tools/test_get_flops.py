"""tools/analysis_tools/get_flops.py against formulas derived by hand and published counts."""

import json
import runpy

import pytest
import torchvision
from mmengine.config import Config

from locat_mm.analysis.complexity import input_size, measure_complexity
from locat_mm.config import load_config
from tests.support import ROOT, demo_config

get_flops = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'get_flops.py'))['main']
LEAVES = {False: 'vit/vit_tiny_imagenet.py', True: 'locat/locatvit_tiny_imagenet.py'}
BASE = dict(embed_dim=768, depth=12, num_heads=12)
SMALL = dict(embed_dim=24, depth=2, num_heads=3)


def vit(locat: bool, arch: dict) -> Config:
    overrides = {
        'model.backbone.arch': dict(_delete_=True, **arch),
        'model.head.in_channels': arch['embed_dim'],
    }
    if locat:
        overrides['model.neck.num_heads'] = arch['num_heads']
    return load_config(str(ROOT / 'configs' / LEAVES[locat]), overrides)


def attention_and_mlp(tokens: int, keys: int, width: int) -> int:
    """A transformer block: qkv, output and two MLP layers of four widths; q kᵀ and P v."""
    return 12 * tokens * width**2 + 2 * tokens * keys * width


def vit_macs(arch: dict, patches: int, locat: bool, patch: int = 16) -> int:
    width, tokens = arch['embed_dim'], patches + 1
    macs = patches * 3 * patch**2 * width
    macs += arch['depth'] * attention_and_mlp(tokens, tokens, width)
    if locat:
        # Per head and patch query two variances and one strength: 3 × head width, so 3 × width.
        macs += arch['depth'] * patches * 3 * width
        macs += 2 * tokens * width  # PRR of the [CLS] token, all that the head reads
    return macs


@pytest.mark.parametrize('locat', [False, True], ids=['plain', 'locat'])
@pytest.mark.parametrize('backend', [None, 'naive'])
def test_vit_equals_the_closed_formula(locat, backend):
    cfg = vit(locat, SMALL)
    if locat:
        cfg.model.backbone.attention_backend = backend
    for image_size, patches in ((None, 14 * 14), ((64, 96), 4 * 6)):
        found = measure_complexity(cfg, image_size)
        assert found.total.macs == vit_macs(SMALL, patches, locat) + 24 * 1000
        assert sum(part.macs for part in found.parts.values()) == found.total.macs
    assert found.parts['head'].macs == 24 * 1000
    if locat:
        assert (found.parts['neck'].parameters, found.parts['neck'].macs) == (0, 2 * 25 * 24)


def test_a_rotated_kernel_adds_one_projection():
    cfg = vit(True, SMALL)
    aligned = measure_complexity(cfg).total
    cfg.model.backbone.kernel = 'rotated'
    rotated = measure_complexity(cfg).total
    assert rotated.parameters - aligned.parameters == 2 * (8 + 1)
    assert rotated.macs - aligned.macs == 2 * 196 * 24


def test_base_beside_the_paper():
    plain, locat = (measure_complexity(vit(kind, BASE)).total for kind in (False, True))
    assert locat.parameters - plain.parameters == 2340
    assert plain.parameters == plain.trainable == 86_567_656
    assert plain.macs == vit_macs(BASE, 196, False) + 768_000
    assert locat.macs == vit_macs(BASE, 196, True) + 768_000
    # The paper's 17.58 holds the 25 norms, too, at 5 operations a number: 0.019 G.
    assert plain.macs + 25 * 197 * 768 * 5 == pytest.approx(17.58e9, rel=3e-4)
    # And PRR of all tokens, where ours refines the one that is read.
    assert locat.macs + 2 * 196 * 197 * 768 == pytest.approx(17.64e9, rel=1e-3)


@pytest.mark.parametrize('locat', [False, True], ids=['plain', 'locat'])
def test_swin_equals_the_closed_formula(locat):
    arch = dict(embed_dim=24, depths=(2, 2), num_heads=(2, 4))
    backbone = dict(type='locat_mm.LocAtSwin', arch=arch, img_size=112, window_size=7, gaug=locat)
    neck = dict(type='locat_mm.PatchRepresentationRefinement', num_heads=4, pool='avg')
    model = dict(
        type='ImageClassifier',
        backbone=dict(backbone, out_type='featmap' if locat else 'avg_featmap'),
        neck=neck if locat else None,
        head=dict(type='LinearClsHead', num_classes=10, in_channels=48),
    )
    found = measure_complexity(Config(dict(default_scope='mmpretrain', model=model)))
    first, second, window = 28 * 28, 14 * 14, 7 * 7
    macs = first * 3 * 4**2 * 24  # patches
    macs += 2 * attention_and_mlp(first, window, 24)
    macs += second * (4 * 24) * 48  # four neighbours merged
    macs += 2 * attention_and_mlp(second, window, 48)
    if locat:
        macs += 2 * (first * 3 * 24 + second * 3 * 48) + 2 * second**2 * 48
    assert found.total.macs == macs + 48 * 10
    assert found.image_size == (112, 112)


@pytest.mark.parametrize(
    ('backbone', 'neck', 'width', 'published'),
    [
        (dict(type='ResNet', depth=50), 'GlobalAveragePooling', 2048, 'ResNet50_Weights'),
        (dict(type='SwinTransformer', arch='tiny'), 'GlobalAveragePooling', 768, 'Swin_T_Weights'),
    ],
    ids=['resnet50', 'swin_tiny'],
)
def test_stock_classifiers_equal_torchvisions_counts(backbone, neck, width, published):
    model = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type=neck),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=width),
    )
    cfg = Config(dict(default_scope='mmpretrain', model=model))
    found = measure_complexity(cfg, (224, 224)).total
    meta = getattr(torchvision.models, published).IMAGENET1K_V1.meta
    assert found.parameters == meta['num_params']
    assert round(found.macs / 1e9, 3) == meta['_ops']


def test_a_segmentors_auxiliary_head_does_not_run():
    head = dict(type='FCNHead', channels=8, num_convs=1, concat_input=False, num_classes=5)
    model = dict(
        type='EncoderDecoder',
        pretrained='open-mmlab://resnet18_v1c',
        backbone=dict(type='ResNetV1c', depth=18),
        decode_head=dict(head, in_channels=512, in_index=3),
        auxiliary_head=dict(head, in_channels=256, in_index=2),
        test_cfg=dict(mode='whole'),
    )
    cfg = Config(dict(default_scope='mmseg', crop_size=(64, 96), model=model))
    found = measure_complexity(cfg)
    assert found.image_size == (64, 96)
    weights, auxiliary, biases = 3 * 3 * 512 * 8 + 8 * 5, 3 * 3 * 256 * 8 + 8 * 5, 8 + 5
    assert found.parts['head'].macs == 2 * 3 * weights
    assert found.parts['head'].parameters == weights + auxiliary + 2 * biases


def test_the_tool_on_a_frozen_segmentor(tmp_path, capsys):
    out = tmp_path / 'cost.json'
    config = str(demo_config('locatvit_segment'))
    get_flops([config, '--shape', '48', '--out', str(out)])
    printed, written = capsys.readouterr().out, json.loads(out.read_text())
    decoder = 64 * 128 + 128 + 2 * 128 + 128 * 11 + 11
    assert written['image_size'] == [48, 48]
    assert written['parts']['backbone']['trainable'] == 0
    assert written['total']['trainable'] == written['parts']['head']['parameters'] == decoder
    assert written['parts']['head']['macs'] == 36 * (64 * 128 + 128 * 11)
    assert f'{decoder:,}' in printed and 'Elementwise work is not counted' in printed
    get_flops([config, '--shape', '48', '24', '--cfg-options', 'model.decode_head.channels=64'])
    assert '48×24 pixels' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('vit/vit_tiny_imagenet.py', (224, 224)),
        ('vit/vit_tiny_ade20k.py', (512, 512)),
        ('demo/vit_classify.py', (48, 48)),
        ('demo/vit_segment.py', (72, 72)),
    ],
)
def test_input_size_is_the_configs_own(config, expected):
    assert input_size(load_config(str(ROOT / 'configs' / config))) == expected


def test_a_crop_is_width_by_height():
    pipeline = [dict(type='CenterCrop', crop_size=(32, 16))]  # mmcv's order
    test_dataloader = dict(dataset=dict(pipeline=pipeline))
    assert input_size(Config(dict(model=dict(), test_dataloader=test_dataloader))) == (16, 32)


def test_bad_input_is_one_clear_error(tmp_path, capsys):
    lenet = tmp_path / 'lenet.py'
    model = dict(type='ImageClassifier', backbone=dict(type='LeNet5'))
    lenet.write_text(f"default_scope = 'mmpretrain'\nmodel = {model}\n")
    with pytest.raises(ValueError, match=r'lenet.py states no input size: give one \(--shape\)'):
        get_flops([str(lenet)])
    part = str(ROOT / 'configs' / '_base_' / 'runtime_pretrain.py')
    with pytest.raises(ValueError, match='runtime_pretrain.py has no model'):
        get_flops([part])
    for wrong in (['--shape', '1', '2', '3'], ['--shape', '0'], ['--out', 'cost.txt']):
        with pytest.raises(SystemExit):
            get_flops([str(demo_config('vit_classify')), *wrong])
        assert wrong[0] in capsys.readouterr().err.splitlines()[-1]


def rows_of_the_document() -> list[tuple[str, str, str]]:
    """Name, parameters and GMACs of every model in docs/costs.md."""
    lines = (ROOT / 'docs' / 'costs.md').read_text().splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    return [(row[0], row[1], row[5]) for row in cells if len(row) == 8 and '-' in row[0][3:]]


def test_the_document_has_every_family_and_size():
    names = [name for name, *_ in rows_of_the_document()]
    assert len(names) == len(set(names)) == 30


@pytest.mark.fields
@pytest.mark.parametrize(('name', 'parameters', 'gmacs'), rows_of_the_document())
def test_the_document_has_todays_counts(name, parameters, gmacs):
    stem = name.lower().replace('-', '_')
    (config,) = (ROOT / 'configs').glob(f'*/{stem}_imagenet.py')
    total = measure_complexity(load_config(str(config)), None).total
    assert (f'{total.parameters:,}', f'{total.macs / 1e9:.3f}') == (parameters, gmacs)
