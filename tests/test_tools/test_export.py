"""tools/deployment/export.py: files, metadata and errors, on models of one block.

The tests marked ``export`` take long: make test-export runs them.
"""

import json
import re
import runpy
import shutil
import sys

import onnxruntime
import pytest
import torch
from mmengine.registry import init_default_scope

from locat_mm.analysis.complexity import build_model
from locat_mm.config import load_config

SMALL = dict(arch=dict(_delete_=True, embed_dim=24, depth=1, num_heads=2))
SWIN = dict(arch=dict(_delete_=True, embed_dim=8, depths=(2, 1), num_heads=(1, 2)))
NO_WEIGHTS = dict(init_cfg=None)
UPERNET = dict(
    type='UPerHead',
    in_channels=[24] * 2,
    in_index=[0, 1],
    pool_scales=(1, 2, 3, 6),
    channels=8,
    num_classes=11,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    align_corners=False,
)
#: name -> the config it inherits from, and what is changed.
CONFIGS = {
    'segmentor': ('demo/locatvit_segment.py', dict(backbone=SMALL | NO_WEIGHTS, decode_head=24)),
    'classifier': ('demo/locatvit_classify.py', dict(backbone=SMALL, head=24)),
    'swin': (
        'demo/families/locatswin_segment.py',
        dict(backbone=SWIN | NO_WEIGHTS, decode_head=16),
    ),
    'upernet': (
        'demo/locatvit_segment.py',
        dict(
            backbone=dict(NO_WEIGHTS, arch={**SMALL['arch'], 'depth': 2}, out_indices=(0, 1)),
            decode_head=dict(UPERNET, _delete_=True),
        ),
    ),
}


@pytest.fixture(scope='module')
def main(root):
    return runpy.run_path(str(root / 'tools' / 'deployment' / 'export.py'))['main']


@pytest.fixture
def make(root, tmp_path, monkeypatch):
    """Write a small model's config and checkpoint; return both and the model."""
    monkeypatch.chdir(tmp_path)

    def make(name):
        base, model = CONFIGS[name]
        model = {
            key: dict(in_channels=value) if isinstance(value, int) else value
            for key, value in model.items()
        }
        config = tmp_path / f'{name}.py'
        config.write_text(f'_base_ = {str(root / "configs" / base)!r}\nmodel = {model!r}\n')
        cfg = load_config(str(config))
        init_default_scope(cfg.default_scope)
        built = build_model(cfg).eval()
        torch.save(dict(state_dict=built.state_dict(), meta={}), tmp_path / f'{name}.pth')
        return str(config), str(tmp_path / f'{name}.pth'), built

    return make


def run_onnx(file, image):
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    (out,) = session.run(None, {'image': image.numpy()})
    return torch.from_numpy(out), session.get_modelmeta().custom_metadata_map


@pytest.mark.export
def test_segmentor_at_another_size(make, main, tmp_path, capsys):
    config, checkpoint, model = make('segmentor')
    options = ['--output', 'argmax', '--with-normalization', '--repeats', '1']
    main([config, checkpoint, '--format', 'onnx', '--out', 'new/seg.onnx', *options])
    printed = capsys.readouterr().out
    assert 'opset 18' in printed and 'sides that are multiples of 8 pixels' in printed
    case = r'^batch [13], \d+×\d+: .*PyTorch .* ms, onnxruntime .* ms$'
    assert len(re.findall(case, printed, re.M)) == 6
    assert [file.name for file in (tmp_path / 'new').iterdir()] == ['seg.onnx']
    image = torch.rand(4, 3, 40, 104) * 255
    classes, metadata = run_onnx('new/seg.onnx', image)
    preprocessor = model.data_preprocessor
    normalized = (image - preprocessor.mean) / preprocessor.std
    with torch.no_grad():
        wanted = model.encode_decode(normalized, [dict(img_shape=(40, 104))]).argmax(1)
    assert (classes != wanted).float().mean() < 1e-3
    assert metadata['size_multiple'] == '8' and metadata['mean'] == 'null'
    assert json.loads(metadata['classes'])[:2] == ['background', '0']


@pytest.mark.export
def test_classifier_with_prr(make, main):
    config, checkpoint, model = make('classifier')
    options = ['--output', 'scores', '--repeats', '1']
    main([config, checkpoint, '--format', 'onnx', '--out', 'cls.onnx', *options])
    image = torch.randn(5, 3, 32, 72)
    scores, metadata = run_onnx('cls.onnx', image)
    with torch.no_grad():
        wanted = model(image, mode='tensor').softmax(1)
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)
    assert json.loads(metadata['mean']) == [127.5] * 3 and metadata['channel_order'] == 'RGB'


@pytest.mark.export
def test_upernet(make, main):
    config, checkpoint, model = make('upernet')
    main([config, checkpoint, '--format', 'onnx', '--out', 'uper.onnx', '--repeats', '1'])
    image = torch.randn(1, 3, 64, 120)
    logits, _ = run_onnx('uper.onnx', image)
    with torch.no_grad():
        wanted = model.encode_decode(image, [dict(img_shape=(64, 120))])
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)


def test_torch_file_of_a_backbone(make, main):
    config, checkpoint, model = make('classifier')
    options = ['--part', 'backbone', '--repeats', '1']
    main([config, checkpoint, '--format', 'torch', '--out', 'backbone.pt2', *options])
    extra_files = {'metadata.json': ''}
    program = torch.export.load('backbone.pt2', extra_files=extra_files)
    metadata = json.loads(extra_files['metadata.json'])
    assert metadata['task'] == 'backbone' and metadata['config'] == 'classifier.py'
    image = torch.randn(2, 3, 64, 40)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), model.backbone(image))


@pytest.mark.export
def test_swin_has_one_size(make, main, capsys):
    config, checkpoint, model = make('swin')
    command = [config, checkpoint, '--format', 'onnx', '--out', 'swin.onnx', '--repeats', '1']
    with pytest.raises(ValueError, match='--size HEIGHT WIDTH --static'):
        main(command)
    main([*command, '--size', '52', '40', '--static'])
    assert '52×40 pixels' in capsys.readouterr().out
    image = torch.randn(2, 3, 52, 40)
    logits, metadata = run_onnx('swin.onnx', image)
    with torch.no_grad():
        wanted = model.encode_decode(image, [dict(img_shape=(52, 40))])
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    assert json.loads(metadata['size']) == [52, 40]


def test_errors_come_before_any_work_and_leave_nothing(make, main, root, tmp_path, monkeypatch):
    config, checkpoint, _ = make('classifier')
    (tmp_path / 'file').write_text('')
    base = str(root / 'configs' / '_base_' / 'datasets' / 'ade20k.py')
    other = make('segmentor')[1]
    before = sorted(tmp_path.rglob('*'))

    def fails(error, message, *options, config=config, checkpoint=checkpoint, kind='onnx'):
        with pytest.raises(error, match=message):
            main([config, checkpoint, '--format', kind, *options])
        assert sorted(tmp_path.rglob('*')) == before

    fails(ValueError, r'must end in \.onnx', '--out', 'x.pth')
    fails(ValueError, r'must end in \.pt2', '--out', 'x.onnx', kind='torch')
    fails(OSError, 'cannot be written: .*file is no folder', '--out', 'file/x.onnx')
    fails(OSError, 'cannot be written', '--out', '/proc/x.onnx')
    fails(FileNotFoundError, 'none.pth', '--out', 'x.onnx', checkpoint='none.pth')
    fails(ValueError, 'has no model', '--out', 'x.onnx', config=base)
    fails(ValueError, 'segmentor.pth', '--out', 'x.onnx', checkpoint=other)
    fails(ValueError, "'argmax' is not for classification", '--out', 'x.onnx', '--output', 'argmax')
    fails(ValueError, 'multiples of 8 pixels', '--out', 'x.onnx', '--size', '30', '32')
    shutil.copy('file', 'x.onnx')
    before.append(tmp_path / 'x.onnx')
    before.sort()
    fails(FileExistsError, '--force', '--out', 'x.onnx')

    monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # import raises ModuleNotFoundError
    fails(ModuleNotFoundError, r'pip install "locat_mm\[deploy\]"', '--out', 'y.onnx')


def test_a_file_that_differs_is_not_kept(make, main, tmp_path):
    config, checkpoint, _ = make('classifier')
    before = sorted(tmp_path.rglob('*'))
    options = ['--tolerance', '0', '--repeats', '1']
    with pytest.raises(ValueError, match='differs from PyTorch'):
        main([config, checkpoint, '--format', 'onnx', '--out', 'x.onnx', *options])
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.export
def test_the_docs_run_as_they_stand(root, make, main, tmp_path):
    """docs/export.md on small models of the configs that it names."""
    for name in ('segmentor', 'classifier', 'swin'):
        config, _, _ = make(name)
        named = tmp_path / 'configs' / CONFIGS[name][0]
        named.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(config, named)
    page = (root / 'docs' / 'export.md').read_text()
    ran = []
    for language, block in re.findall(r'```(bash|python)\n(.*?)```', page, re.S):
        if language == 'python':
            block = block.replace("'vit_tiny_patch16_224'", "'vit_tiny_patch16_224', depth=1")
            exec(compile(block, 'export.md', 'exec'), {})
            ran.append('python')
            continue
        for line in block.replace('\\\n', ' ').splitlines():
            words = line.partition('#')[0].split()
            if words[:2] == ['python', 'tools/deployment/export.py']:
                main([*words[2:], '--repeats', '1'])
                ran.append('tool')
            else:
                assert words == ['pip', 'install', '"locat_mm[deploy]"']
    assert ran == ['tool', 'python', 'tool', 'tool', 'python', 'tool', 'python']
