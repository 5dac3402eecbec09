"""Configs that mmseg and mmpretrain ship, with GAug and PRR put into them as a user would.

A user's own config inherits the stock file and replaces the backbone: ``_delete_=True`` keeps the
stock backbone's entries out of the new one. ``_base_.model.backbone`` is the stock backbone;
``{{_base_.model.backbone}}`` is the same, but cannot be changed on the spot, as in
``dict(_base_.model.backbone, drop_path_rate=0.1)``.
"""

import re

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmengine.analysis.print_helper import _format_size
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.apis import ImageClassificationInferencer, get_model
from mmseg.apis import MMSegInferencer, inference_model, init_model

from locat_mm.checkpoint import read_state_dict
from tests.support.stock import (
    KINDS,
    TOOLS,
    batch,
    every_other_stock_config,
    inherit,
    refined,
    shrink,
)
from tests.support.workplace import Workplace

WRAP = """
model = dict(
    backbone=dict(_delete_=True, type='LOCAT.LocAt', backbone=_base_.model.backbone),
)
"""
VIT = ('mmpretrain', 'vision_transformer/vit-base-p16_64xb64_in1k')
UPERNET = ('mmseg', 'vit/vit_vit-b16-ln_mln_upernet_8xb2-160k_ade20k-512x512')
SETR = ('mmseg', 'setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512')


def build(cfg: Config) -> torch.nn.Module:
    """As mmengine's Runner does in a single process."""
    init_default_scope(cfg.default_scope)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    net = revert_sync_batchnorm(MODELS.build(cfg.model))
    net.init_weights()
    return net


def step(net: torch.nn.Module, cfg: Config, data: dict) -> set[str]:
    """One step of the stock optimizer; the GAug layers whose gain got a gradient."""
    if hasattr(net, 'head'):  # begins at 0 in stock configs, which holds gradients back
        for parameter in net.head.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    wrapper = ConfigDict(cfg.optim_wrapper, type='OptimWrapper')  # AMP needs an accelerator
    wrapper.pop('loss_scale', None)
    wrapper = build_optim_wrapper(net, wrapper)
    trained = {p for group in wrapper.optimizer.param_groups for p in group['params']}
    assert trained == {p for p in net.parameters() if p.requires_grad}
    reached = set()
    for name, parameter in net.named_parameters():
        if name.endswith('.gaug.gain'):
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: reached.add(name) if p.grad.any() else None
            )
    logged = net.train().train_step(data, wrapper)
    assert logged['loss'].isfinite()
    assert all(p.isfinite().all() for p in net.parameters())
    return reached


def gains(net: torch.nn.Module) -> list[str]:
    return [name for name, _ in net.named_parameters() if name.endswith('.gaug.gain')]


def check(folder, package, name, scoped):
    stock = Config.fromfile(inherit(folder, package, name, '', file='stock'))
    wrapped = Config.fromfile(inherit(folder, package, name, WRAP, scoped))
    host, net = build(shrink(stock)), build(shrink(wrapped))

    # Keys: the host's and GAug's, once for every attention layer of the backbone.
    keys = host.state_dict().keys()
    gaug = [key for key in net.state_dict() if '.gaug.' in key]
    assert net.state_dict().keys() == {*keys, *gaug}
    attention = re.compile(r'(backbone\..*)\.(qkv|attn\.in_proj_)\.?weight')
    found = {match[1] for match in map(attention.fullmatch, keys) if match}
    assert {key.rpartition('.gaug.')[0] for key in gaug} == found and found

    # The stock checkpoint fits, and GAug that it lacks begins next to nothing.
    torch.save(host.state_dict(), folder / 'stock.pth')
    fit = net.load_state_dict(torch.load(folder / 'stock.pth'), strict=False)
    assert sorted(fit.missing_keys) == sorted(gaug) and not fit.unexpected_keys
    data = batch(stock)
    with torch.no_grad():
        inputs = host.data_preprocessor(data)['inputs']
        expected, got = host.eval().extract_feat(inputs), net.eval().extract_feat(inputs)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)

    # Every GAug learns, but where only class tokens are read nothing asks for the last patches.
    expected = gains(net)
    reads_patches = package == 'mmseg' or 'Swin' in stock.model.backbone.type
    if not reads_patches and stock.model.backbone.get('out_type', 'cls_token') == 'cls_token':
        expected.pop()
    assert step(net, wrapped, data) == set(expected)


@pytest.mark.parametrize(
    'package, name, scoped', [(*kind, index % 2 == 0) for index, kind in enumerate(KINDS)]
)
def test_stock_config_of_every_kind(tmp_path, package, name, scoped):
    check(tmp_path, package, name, scoped)


@pytest.mark.stock
@pytest.mark.parametrize('package, name', every_other_stock_config())
def test_every_other_stock_config(tmp_path, package, name):
    check(tmp_path, package, name, scoped=True)


def test_both_ways_to_name_the_base(tmp_path):
    braces = WRAP.replace('_base_.model.backbone', '{{_base_.model.backbone}}')
    one, two = (
        Config.fromfile(inherit(tmp_path, *UPERNET, body, file=f'way{i}'))
        for i, body in enumerate((WRAP, braces))
    )
    assert one.model == two.model
    assert one.model.backbone.keys() == {'type', 'backbone'}
    stock = Config.fromfile(inherit(tmp_path, *UPERNET, '', file='stock'))
    assert one.model.backbone.backbone == stock.model.backbone


PRR_OF_TOKENS = """
model = dict(
    backbone=dict(
        _delete_=True,
        type='LOCAT.LocAt',
        backbone=dict(_base_.model.backbone, out_type='raw', with_cls_token=CLS),
    ),
    neck=dict(_delete_=True, type='LOCAT.PatchRepresentationRefinement', num_heads=12, pool='POOL'),
)
"""


@pytest.mark.parametrize('cls, pool', [(True, 'cls_token'), (False, 'avg')])
def test_prr_in_a_stock_classifier(tmp_path, cls, pool):
    body = PRR_OF_TOKENS.replace('CLS', str(cls)).replace('POOL', pool)
    cfg = shrink(Config.fromfile(inherit(tmp_path, *VIT, body, scoped=cls)))
    net = build(cfg)
    data = batch(cfg)
    images = net.eval().data_preprocessor(data)['inputs']
    with torch.no_grad():
        tokens = refined(net.extract_feat(images, stage='backbone')[0], 12)
        pooled = tokens[:, 0] if cls else tokens.mean(dim=1)
        torch.testing.assert_close(net(images), net.head((pooled,)))
    # The last block's patches, which a class token alone leaves without gradient, learn too.
    assert step(net, cfg, data) == set(gains(net))


@pytest.mark.parametrize(
    'base, neck, num_heads',
    [
        (UPERNET, "[dict(type='LOCAT.{}', num_heads=12, pool=None), _base_.model.neck]", 12),
        (SETR, "dict(type='LOCAT.{}', num_heads=16, pool=None)", 16),
    ],
    ids=['before the neck', 'no other neck'],
)
def test_prr_in_a_stock_segmentor(tmp_path, base, neck, num_heads):
    """mmengine builds a list of necks one after another."""
    neck = neck.format('PatchRepresentationRefinement')
    body = WRAP.replace('model = dict(', f'model = dict(\n    neck={neck},')
    cfg = shrink(Config.fromfile(inherit(tmp_path, *base, body)))
    net = build(cfg)
    data = batch(cfg)
    images = net.eval().data_preprocessor(data)['inputs']
    with torch.no_grad():
        maps = net.backbone(images)
        expected = [refined(x.flatten(2).mT, num_heads).mT.unflatten(2, x.shape[-2:]) for x in maps]
        if base is UPERNET:
            expected = net.neck[1](expected)
        torch.testing.assert_close(net.extract_feat(images), tuple(expected))
    assert step(net, cfg, data) == set(gains(net))


SEGMENT = """
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        _delete_=True,
        type='LOCAT.LocAt',
        backbone=dict(_base_.model.backbone, embed_dims=48, num_layers=4, out_indices=(0, 1, 2, 3)),
    ),
    neck=dict(in_channels=[48] * 4, out_channels=48),
    decode_head=dict(in_channels=[48] * 4, channels=16),
    auxiliary_head=dict(in_channels=48, channels=16),
)
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (96, 64)
train_pipeline[3].crop_size = (64, 64)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (96, 64)
loading = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loading, dataset=dict(data_root='ade', pipeline=train_pipeline))
val_dataloader = dict(**loading, dataset=dict(data_root='ade', pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""
CLASSIFY = """
model = dict(
    backbone=dict(
        _delete_=True,
        type='LOCAT.LocAt',
        backbone=dict(_base_.model.backbone, arch='deit-tiny', out_type='raw'),
    ),
    neck=dict(_delete_=True, type='LOCAT.PatchRepresentationRefinement', num_heads=3),
    head=dict(num_classes=2, in_channels=192, hidden_dim=48, topk=1),
)
data_preprocessor = dict(num_classes=2)
loading = dict(num_workers=0, persistent_workers=False, batch_size=2)
images = dict(data_root='imagenet', metainfo=dict(classes=('circle', 'square')))
train_dataloader = dict(**loading, dataset=images)
val_dataloader = dict(**loading, dataset=images)
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with data in the layouts of ADE20K and ImageNet, of three images a split."""
    folder = tmp_path_factory.mktemp('stock')
    random = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for index in range(3):
            image = random.integers(256, size=(64, 96, 3), dtype=np.uint8)
            # Noise, pixel by pixel: any class that an untrained model predicts is somewhere right.
            labels = random.integers(151, size=(64, 96), dtype=np.uint8)
            save(folder / 'ade' / 'images' / split / f'{index}.jpg', image)
            save(folder / 'ade' / 'annotations' / split / f'{index}.png', labels)
    for split in ('train', 'val'):
        for name in ('circle', 'square'):
            image = random.integers(256, size=(64, 96, 3), dtype=np.uint8)
            save(folder / 'imagenet' / split / name / '0.JPEG', image)
    return folder


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def run_tool(folder, package, tool, *args, fails: bool = False) -> str:
    """Run a tool of another package as a user would; return what it printed."""
    return Workplace(folder).run(str(TOOLS[package] / tool), *args, fails=fails)


@pytest.fixture(scope='module')
def segmentor(place):
    """Config and checkpoint that mmseg's train.py made, and what it printed."""
    config = inherit(place, *UPERNET, SEGMENT, scoped=True, file='segmentor')
    log = run_tool(place, 'mmseg', 'train.py', config, '--work-dir', 'seg')
    return config, place / 'seg' / 'iter_2.pth', log


@pytest.fixture(scope='module')
def classifier(place):
    config = inherit(place, *VIT, CLASSIFY, scoped=False, file='classifier')
    log = run_tool(place, 'mmpretrain', 'train.py', config, '--work-dir', 'cls')
    return config, place / 'cls' / 'epoch_1.pth', log


def test_mmseg_train_and_test(place, segmentor):
    config, checkpoint, log = segmentor
    scores = re.compile(r'aAcc: ([\d.]+)  mIoU: ([\d.]+)  mAcc: ([\d.]+)')
    trained = scores.search(log).groups()
    assert float(trained[0]) > 0
    tested = run_tool(place, 'mmseg', 'test.py', config, checkpoint)
    assert scores.search(tested).groups() == trained
    assert all(
        f'backbone.layers.{i}.attn.gaug.gain' in read_state_dict(checkpoint) for i in range(4)
    )
    for words in ('unexpected key', 'missing keys', 'weights_only=False'):
        assert words not in tested


def test_mmseg_get_flops(place, segmentor):
    bare = inherit(place, *UPERNET, SEGMENT, scoped=False, file='bare')
    tool = 'analysis_tools/get_flops.py'
    if mmengine.__version__ == '0.10.7':  # upstream's fails with every config
        assert '"inputs" cannot be both set' in run_tool(place, 'mmseg', tool, bare, fails=True)
        return
    printed = run_tool(place, 'mmseg', tool, bare, '--shape', 64, 96)
    weights = read_state_dict(segmentor[1]).items()
    counted = ('backbone.', 'neck.', 'decode_head.')
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    params = sum(v.numel() for k, v in weights if k.startswith(counted) and not k.endswith(buffers))
    assert f'Params: {_format_size(params)}' in printed
    assert re.search(r'Flops: [\d.]+[MG]', printed)


def test_mmseg_benchmark(place, segmentor):
    config, checkpoint, _ = segmentor
    # It reports from its sixth image on.
    many = place / 'many.py'
    many.write_text(
        f"_base_ = '{config}'\n"
        "test_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, "
        'dataset=_base_.test_dataloader.dataset))\n'
    )
    tool = 'analysis_tools/benchmark.py'
    printed = run_tool(
        place, 'mmseg', tool, many, checkpoint, '--log-interval', 6, '--work-dir', 'fps'
    )
    assert float(re.search(r'Done image \[6 .*fps: ([\d.]+)', printed)[1]) > 0


def test_mmseg_inference(place, segmentor):
    config, checkpoint, _ = segmentor
    image = str(place / 'ade' / 'images' / 'validation' / '0.jpg')
    model = init_model(str(config), str(checkpoint), device='cpu')
    result = inference_model(model, image)
    assert result.pred_sem_seg.data.shape == (1, 64, 96)
    inferencer = MMSegInferencer(model=str(config), weights=str(checkpoint), device='cpu')
    predicted = inferencer(image)['predictions']
    assert np.array_equal(predicted, result.pred_sem_seg.data[0])
    # The stock model on the same weights, whose gains have hardly grown.
    stock = Config.fromfile(config)
    stock.model.backbone = stock.model.backbone.backbone
    expected = inference_model(init_model(stock, str(checkpoint), device='cpu'), image)
    torch.testing.assert_close(
        result.seg_logits.data, expected.seg_logits.data, rtol=1e-3, atol=1e-3
    )


def test_mmpretrain_train_and_test(place, classifier):
    config, checkpoint, log = classifier
    scores = re.compile(r'accuracy/top1: ([\d.]+)')
    tested = run_tool(
        place, 'mmpretrain', 'test.py', config, checkpoint, '--work-dir', 'cls_tested'
    )
    assert scores.search(tested)[1] == scores.search(log)[1]
    assert 'backbone.layers.11.attn.gaug.gain' in read_state_dict(checkpoint)
    for words in ('unexpected key', 'missing keys', 'weights_only=False'):
        assert words not in tested


def test_mmpretrain_inference(place, classifier):
    config, checkpoint, _ = classifier
    image = str(place / 'imagenet' / 'val' / 'circle' / '0.JPEG')
    model = get_model(str(config), pretrained=str(checkpoint), device='cpu')
    result = ImageClassificationInferencer(model)(image)[0]
    assert result['pred_class'] in ('circle', 'square')
    named = ImageClassificationInferencer(str(config), pretrained=str(checkpoint), device='cpu')
    assert np.array_equal(named(image)[0]['pred_scores'], result['pred_scores'])
