"""tools/model_converters: to the official names and back, bit for bit."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from locat_mm import load_official
from locat_mm.checkpoint import read_state_dict, write_state_dict
from tests.support.checkpoints import build, segmentor_cfg
from tests.support.golden import VARIANTS, Golden

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'


@pytest.fixture
def convert(monkeypatch):
    def run(tool, *args):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        runpy.run_path(str(TOOLS / f'{tool}.py'), run_name='__main__')

    return run


def assert_same(state, expected):
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], value) for key, value in expected.items())


@pytest.mark.parametrize('name', VARIANTS)
def test_there_and_back(name, convert, tmp_path):
    golden = Golden(name)
    theirs, ours, back = (tmp_path / f for f in ('t.safetensors', 'o.pth', 'b.safetensors'))
    write_state_dict(golden.state_dict, theirs)
    # PRR without GAug is not seen in the names.
    option = ['--fc-norm', 'neck' if golden.prr else 'backbone'] if golden.gap else []
    convert('timm2mm', theirs, ours, *option)
    model = golden.classifier()
    model.load_state_dict(read_state_dict(ours), strict=True)
    assert_same(model.state_dict(), load_official(golden.classifier(), theirs).state_dict())
    convert('mm2timm', ours, back)
    assert_same(load_file(back), golden.state_dict)


def test_rotated_kernels_keep_their_correlations(convert, tmp_path):
    model = Golden('locatvit').classifier(kernel='rotated')
    names = [key for key in model.state_dict() if '.gaug.correlation.' in key]
    for key in names:
        model.get_parameter(key).data.normal_()
    ours, theirs, back = (tmp_path / f for f in ('o.pth', 't.safetensors', 'b.pth'))
    write_state_dict(model.state_dict(), ours)
    convert('mm2timm', ours, theirs)
    assert {key.removeprefix('backbone.') for key in names} <= load_file(theirs).keys()
    convert('timm2mm', theirs, back)
    assert_same(read_state_dict(back), model.state_dict())


def test_the_norm_after_pooling_follows_gaug_by_default(convert, tmp_path):
    for name, key in (('locatvit_gap', 'neck.norm.bias'), ('vit_gap', 'backbone.fc_norm.bias')):
        source, target = tmp_path / f'{name}.pt', tmp_path / f'{name}.pth'
        write_state_dict(Golden(name).state_dict, source)
        convert('timm2mm', source, target)
        assert key in read_state_dict(target)


def test_layers_that_repeat_a_shared_weight(convert, tmp_path):
    once = Golden('jumbo').state_dict
    each = {
        f'blocks.{i}.{key}': value
        for i in range(2)
        for key, value in once.items()
        if key.startswith('jumbo_mlp.')
    }
    source, ours, back = (tmp_path / f for f in ('s.safetensors', 'o.pth', 'b.pth'))
    write_state_dict({**once, **each}, source)
    convert('timm2mm', source, ours)
    convert('mm2timm', ours, back)
    assert_same(read_state_dict(back), once)


def test_from_the_hub(convert, golden, hub, tmp_path):
    hub.add('sinahmr/locatvit_tiny', golden.state_dict)
    convert('timm2mm', 'hf-hub:sinahmr/locatvit_tiny', tmp_path / 'sub' / 'ours.safetensors')
    assert_same(
        read_state_dict(tmp_path / 'sub' / 'ours.safetensors'),
        load_official(golden.classifier(), golden.state_dict).state_dict(),
    )


def test_a_segmentor_gives_its_backbone_and_says_so(convert, golden, tmp_path, capsys):
    model = build(segmentor_cfg(golden))
    source, target = tmp_path / 'iter_20000.pth', tmp_path / 'backbone.safetensors'
    torch.save(dict(state_dict=model.state_dict(), meta={}, optimizer={}), source)
    convert('mm2timm', source, target)
    assert_same(load_file(target), model.backbone.state_dict())
    decoder = len(model.decode_head.state_dict())
    assert f'backbone alone, without {decoder} other tensors' in capsys.readouterr().out


def test_a_file_is_overwritten_with_force_alone(convert, golden, tmp_path):
    source, target = tmp_path / 's.pth', tmp_path / 't.pth'
    write_state_dict(golden.state_dict, source)
    target.write_text('precious')
    with pytest.raises(FileExistsError, match='t.pth exists: .*--force'):
        convert('timm2mm', source, target)
    assert target.read_text() == 'precious'
    convert('timm2mm', source, target, '--force')
    assert 'head.fc.weight' in read_state_dict(target)


def test_what_cannot_be_converted_leaves_nothing_behind(convert, golden, tmp_path, monkeypatch):
    ours, theirs, target = tmp_path / 'o.pth', tmp_path / 't.pth', tmp_path / 'x.pth'
    write_state_dict(golden.state_dict, theirs)
    convert('timm2mm', theirs, ours)
    with pytest.raises(ValueError, match="no key starts with 'backbone.'"):
        convert('mm2timm', theirs, target)
    with pytest.raises(ValueError, match="already has OpenMMLab's names"):
        convert('timm2mm', ours, target)
    with pytest.raises(ValueError, match='must end in .safetensors, .pth, .pt'):
        convert('timm2mm', theirs, tmp_path / 'x.bin')
    torch.save({**read_state_dict(ours), 'neck.conv.weight': torch.ones(1)}, ours)
    with pytest.raises(ValueError, match='neck.conv.weight has no name'):
        convert('mm2timm', ours, target)
    # A segmentor's neck, as UPerNet has one, stays behind with its heads.
    torch.save({**read_state_dict(ours), 'decode_head.conv_seg.bias': torch.ones(1)}, ours)
    convert('mm2timm', ours, tmp_path / 'backbone.pth')
    left = {key for key in golden.state_dict if not key.startswith('head.')}
    assert set(read_state_dict(tmp_path / 'backbone.pth')) == left
    (tmp_path / 'backbone.pth').unlink()

    def fail(content, path):
        Path(path).write_text('half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        convert('timm2mm', theirs, target)
    assert {path.name for path in tmp_path.iterdir()} == {'o.pth', 't.pth'}
