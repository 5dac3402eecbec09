"""k-NN evaluation: loop, metric, tool."""

import json
import runpy

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from safetensors.torch import load_file
from sklearn.neighbors import KNeighborsClassifier

from locat_mm.config import load_config
from locat_mm.evaluation import KNNAccuracy
from locat_mm.evaluation.features import vectors
from locat_mm.models.building import build_model
from locat_mm.registry import METRICS, MODELS
from tests.support import ROOT
from tests.support.evaluation import TINY, knn_config, quick_runner, run

tool = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'knn.py'))['main']


def features_of(runner, loader) -> tuple[np.ndarray, np.ndarray]:
    """Mean patches and labels of a loader's images, image by image."""
    model, rows, labels = runner.model.eval(), [], []
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            with torch.no_grad():
                tokens = model.backbone(image[None])[-1][0]
            rows.append(tokens[1:].mean(0).double().numpy())
            labels.append(int(sample.gt_label))
    return np.stack(rows), np.array(labels)


def test_accuracy_and_features_against_scikit_learn(objects, tmp_path):
    out = tmp_path / 'features.safetensors'
    cfg = knn_config(objects, tmp_path, features='avg', features_out=str(out))
    # mmpretrain's own metric takes the vote of the first k.
    ours, stock = dict(type='locat_mm.KNNAccuracy', topk=(1, 2)), dict(type='Accuracy', topk=(1,))
    cfg.test_evaluator = [ours, stock]
    runner, metrics = run(cfg)
    loop = runner.test_loop
    bank, labels = features_of(runner, loop.bank_loader)
    queries, targets = features_of(runner, loop.dataloader)
    assert (len(bank), len(queries)) == (23, 9)
    for k in (1, 5, 10):
        reference = KNeighborsClassifier(
            k, weights=lambda d: np.exp((1 - d) / 0.07), metric='cosine'
        ).fit(bank, labels)
        hits = reference.predict(queries) == targets
        assert metrics[f'knn/top1_k{k}'] == pytest.approx(100 * hits.mean())
        order = np.argsort(-reference.predict_proba(queries), axis=1)[:, :2]
        if k > 1:  # one neighbour votes for one class
            top2 = (order == targets[:, None]).any(axis=1)
            assert metrics[f'knn/top2_k{k}'] == pytest.approx(100 * top2.mean())
    assert 0 < metrics['knn/top1_k5'] < 100  # or nothing was compared
    assert metrics['accuracy/top1'] == pytest.approx(metrics['knn/top1_k1'], abs=1e-3)
    kept = load_file(out)
    for name, expected in (('bank', bank), ('queries', queries)):
        unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(kept[name].numpy(), unit, atol=1e-5)
    np.testing.assert_array_equal(kept['bank_labels'].numpy(), labels)
    np.testing.assert_array_equal(kept['query_labels'].numpy(), targets)
    assert loop._bank is None  # its memory is given back


def test_validation_of_dinos_teacher(objects, tmp_path):
    """The shipped demo in training: k-NN accuracy in the log, of the teacher, not the student."""
    data = {f'{loader}.num_workers': 0 for loader in ('train_dataloader', 'val_dataloader')}
    data |= {
        'train_dataloader.persistent_workers': False,
        'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.data_root': str(objects),
        'val_dataloader.dataset.data_root': str(objects),
        'val_cfg.bank_dataloader.dataset.data_root': str(objects),
        'val_cfg.bank_dataloader.num_workers': 0,
        'val_cfg.k': [5],
        'val_cfg.features_out': str(tmp_path / 'features.safetensors'),
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'optim_wrapper.optimizer.lr': 0.1,
        'model.head.out_channels': 16,
        'model.head.hidden_channels': 16,
        'model.backbone.arch': dict(embed_dim=16, depth=1, num_heads=1),
        'model.head.in_channels': 16,
        'param_scheduler': None,
        'model.neck.num_heads': 1,
    }
    cfg = load_config(str(ROOT / 'configs/demo/dino/locatvit_dino.py'), data, str(tmp_path))
    runner = quick_runner(cfg)
    runner.train()
    assert 'val/knn/top1_k5' in runner.message_hub.log_scalars
    kept = load_file(tmp_path / 'features.safetensors')['queries'].numpy()
    found = {}
    for owner in ('', 'teacher.module.'):
        parts = [runner.model.get_submodule(f'{owner}{name}') for name in ('backbone', 'neck')]
        backbone, neck = (part.eval() for part in parts)
        rows = []
        for batch in runner.val_loop.dataloader:
            images = runner.model.data_preprocessor(batch, False)['inputs']
            with torch.no_grad():
                rows.append(neck(backbone(images[0] if isinstance(images, list) else images))[-1])
        rows = torch.cat(rows).double().numpy()
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        found[owner] = np.abs(rows - kept).max()
    assert found['teacher.module.'] < 1e-5 < found['']


def test_tool(objects, tmp_path, capsys):
    """Any classifier's config: the bank is made of its training images; features are kept."""
    config = str(ROOT / 'configs' / 'demo' / 'vit_classify.py')
    checkpoint = str(tmp_path / 'random.pth')
    torch.save(build_model(load_config(config)).state_dict(), checkpoint)
    kept, out = str(tmp_path / 'kept.safetensors'), str(tmp_path / 'metrics.json')
    options = [f'{part}_dataloader.dataset.data_root={objects}' for part in ('train', 'test')]
    options += ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    arguments = ['--work-dir', str(tmp_path), '--out', out, '--cfg-options', *options]
    tool([config, checkpoint, '--k', '3', '10', '--features-out', kept, *arguments])
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert {'knn/top1_k3', 'knn/top1_k10'} <= set(metrics)
    capsys.readouterr()
    tool(['--features-in', kept, '--k', '3', '10', '--out', out])
    again = json.loads((tmp_path / 'metrics.json').read_text())
    assert again == {key: pytest.approx(metrics[key]) for key in again} and len(again) == 2
    assert 'knn/top1_k3: ' in capsys.readouterr().out
    with pytest.raises(ValueError, match='k=24 neighbours are asked of a bank of 23 rows'):
        tool(['--features-in', kept, '--k', '24'])
    with pytest.raises(ValueError, match='k=200 is more than the 23 images of the bank'):
        tool([config, checkpoint, *arguments])
    for wrong, message in (
        (['--features-in', kept, '--backbone', 'x'], 'runs no model, so it takes no backbone'),
        ([config], 'a config and a checkpoint are needed'),
    ):
        with pytest.raises(SystemExit):
            tool(wrong)
        assert message in capsys.readouterr().err


ARCH = dict(embed_dim=24, depth=2, num_heads=2)
SWIN = dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2))
MMPRETRAIN = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=24),
    img_size=32,
    patch_size=8,
)
RESNET = dict(type='mmpretrain.ResNet', depth=18, base_channels=8, stem_channels=8)
TIMM = dict(type='locat_mm.TIMMBackbone', model_name='vit_tiny_patch16_224', **ARCH)


@pytest.mark.parametrize(
    'backbone, kind, read',
    [
        (TINY | dict(out_type='cls_token'), 'cls', lambda x: x),
        (TINY | dict(out_type='raw', num_registers=3), 'cls', lambda x: x[:, 0]),
        (TINY | dict(out_type='raw', num_registers=3), 'avg', lambda x: x[:, 4:].mean(1)),
        (TINY | dict(out_type='featmap'), 'avg', lambda x: x.mean((2, 3))),
        (TINY | dict(out_type='avg_featmap', class_token=False), 'avg', lambda x: x),
        (
            TINY | dict(type='locat_mm.LocAtJumbo', out_type='raw', num_jumbo_tokens=2),
            'cls',
            lambda x: torch.cat([x[:, 0], x[:, 1]], dim=1),
        ),
        (TINY | dict(type='locat_mm.LocAtRoPEViT', out_type='raw'), 'cls', lambda x: x[:, 0]),
        (TINY | dict(type='locat_mm.LocAtSwin', arch=SWIN), 'avg', lambda x: x),
        (MMPRETRAIN | dict(out_type='raw'), 'cls', lambda x: x[:, 0]),
        (MMPRETRAIN | dict(out_type='raw'), 'avg', lambda x: x[:, 1:].mean(1)),
        (MMPRETRAIN, 'cls', lambda x: x),
        (TIMM | dict(out_type='raw'), 'cls', lambda x: x[:, 0]),
        (RESNET, 'avg', lambda x: x.mean((2, 3))),
    ],
)
def test_what_is_read(backbone, kind, read):
    init_default_scope('mmpretrain')
    model = MODELS.build(backbone)
    model.eval()  # mmpretrain's give nothing back
    with torch.no_grad():
        output = model(torch.randn(2, 3, 32, 32))
    found = vectors(model, output, kind)
    assert found.ndim == 2
    torch.testing.assert_close(found, read(output[-1]))


@pytest.mark.parametrize(
    'backbone, kind',
    [
        (RESNET, 'cls'),
        (TINY | dict(out_type='cls_token'), 'avg'),
        (TINY | dict(out_type='avg_featmap', class_token=False), 'cls'),
        (TINY | dict(out_type='raw', class_token=False, num_registers=2), 'cls'),
        (TINY | dict(out_type='featmap'), 'cls'),
        (TINY | dict(type='locat_mm.LocAtSwin', arch=SWIN, out_type='raw'), 'cls'),
    ],
)
def test_what_cannot_be_read_is_an_error(backbone, kind):
    init_default_scope('mmpretrain')
    model = MODELS.build(backbone)
    model.eval()  # mmpretrain's give nothing back
    with torch.no_grad():
        output = model(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match=f"features='{kind}': the .* cannot be read from"):
        vectors(model, output, kind)


IN_A_LOOP = [
    (dict(k=24), 'k=24 is more than the 23 images of the bank'),
    (dict(k=[5, 0]), r'k must be positive whole numbers, got \[5, 0\]'),
    (dict(k=[]), 'k must be positive whole numbers'),
    (dict(temperature=0.0), 'temperature must be positive, got 0.0'),
    (dict(features='patches'), "unknown features 'patches'; choose from cls, avg"),
    (dict(dtype='int8'), "kept as 'float32' or 'float16', got 'int8'"),
    (dict(features_out='x.pth'), 'must end in .safetensors, got x.pth'),
    (dict(backbone='teacher'), r"no 'teacher' \(.*; its parts are data_preprocessor, back"),
]
IN_A_BANK = [
    (dict(sampler=dict(type='DefaultSampler', shuffle=True)), 'shuffle=True'),
    (dict(sampler=dict(type='InfiniteSampler', shuffle=False)), 'sampler=InfiniteSampler'),
    (dict(drop_last=True), 'drop_last=True'),
]


def test_bad_settings_are_one_clear_error(objects, tmp_path):
    cfg = knn_config(objects, tmp_path)
    runner = quick_runner(cfg)
    bank = cfg.test_cfg.bank_dataloader
    cases = IN_A_LOOP + [
        (dict(bank_dataloader={**bank, **settings}), f'every image once and in order.*{message}')
        for settings, message in IN_A_BANK
    ]
    for settings, message in cases:
        with pytest.raises(ValueError, match=message):
            runner.build_test_loop({**cfg.test_cfg, **settings}).run()


def test_wrong_metrics_are_one_clear_error():
    with pytest.raises(ValueError, match='the loops hand over 5 classes an image, got topk=6'):
        METRICS.build(dict(type='locat_mm.KNNAccuracy', topk=6))
    with pytest.raises(ValueError, match='needs the loop to be locat_mm.KNNValLoop'):
        KNNAccuracy().process(None, [dict(gt_label=torch.tensor([0]))])
