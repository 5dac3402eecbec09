"""Files are read without executing a pickle; damage is named."""

import argparse
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from locat_mm import load_official
from locat_mm.checkpoint import read_state_dict, trust_checkpoints
from tests.support.checkpoints import Hostile


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


@pytest.fixture
def distrust():
    yield
    trust_checkpoints(False)


@pytest.mark.parametrize('new_format', [True, False], ids=['zip', 'older'])
@pytest.mark.parametrize('where', ['top', 'beside'])
def test_no_pickle_is_executed_unless_trusted(where, new_format, golden, tmp_path, distrust):
    marker, file = tmp_path / 'executed', tmp_path / 'weights.pth'
    hostile = Hostile(marker)
    content = hostile if where == 'top' else {'state_dict': golden.state_dict, 'x': hostile}
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    trust_checkpoints(False)
    message = 'nothing else is executed: .*posix.mkdir.* is no plain data.*--trust-checkpoint'
    with pytest.raises(ValueError, match=message):
        load_official(golden.backbone(), file)
    with pytest.raises(ValueError, match=message):
        CheckpointLoader.load_checkpoint(str(file))
    assert not marker.exists()
    trust_checkpoints(True)
    if where == 'top':
        with pytest.raises(ValueError, match='holds no state dict: NoneType'):
            read_state_dict(file)
    else:
        assert set(read_state_dict(file)) == set(golden.state_dict)
    assert marker.exists()


def test_torch_itself_is_held_to_weights_alone(tmp_path, monkeypatch, distrust):
    """Whatever a host's code tells it, and whatever the user's environment says."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    torch.save(Hostile(tmp_path / 'executed'), tmp_path / 'weights.pth')
    trust_checkpoints(False)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'weights.pth', weights_only=False)
    assert not (tmp_path / 'executed').exists()


def test_a_program_that_mmengine_would_run_on_resuming_is_left_out(tmp_path):
    torch.save({'state_dict': {}, 'meta': {'config': 'raise Exit', 'iter': 1}}, tmp_path / 'a.pth')
    trust_checkpoints(False)
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert content['meta'] == {'iter': 1}


@pytest.mark.parametrize('form', ['plain', 'module.', 'model', 'bare', 'bare module.'])
def test_mmengine_gets_every_form_of_weights_under_one_name(form, tmp_path):
    state = {f'{"module." if "module" in form else ""}x.y': torch.ones(2)}
    content = state if 'bare' in form else {'model' if form == 'model' else 'state_dict': state}
    torch.save(content, tmp_path / 'a.pth')
    trust_checkpoints(False)
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert [*(found if 'bare' in form else found['state_dict'])] == ['x.y']


def test_damage_is_found_by_the_checksums_that_torch_leaves_out(golden, tmp_path):
    file = tmp_path / 'weights.pth'
    torch.save(golden.state_dict, file)
    content, part = file.read_bytes(), golden.state_dict['pos_embed'].numpy().tobytes()
    place = content.index(part) + 10
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert not torch.equal(torch.load(file)['pos_embed'], golden.state_dict['pos_embed'])
    with pytest.raises(ValueError, match='its part weights/data/[0-9]+ is damaged'):
        read_state_dict(file)


def test_a_file_that_was_saved_without_checksums_is_read(golden, tmp_path):
    file = tmp_path / 'weights.pth'
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(golden.state_dict, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert set(read_state_dict(file)) == set(golden.state_dict)


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


@pytest.mark.parametrize('core', ['core', '_core'], ids=['numpy 1', 'numpy 2'])
def test_data_of_another_numpy(golden, tmp_path, core):
    """Numpy 2 renamed the module that arrays are pickled by; OpenMMLab's zoo is older."""
    saved, renamed = tmp_path / 'saved.pth', tmp_path / 'renamed.pth'
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({'state_dict': golden.state_dict, 'loss': history, 'lr': np.float32(0.5)}, saved)
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(renamed, 'w') as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith('/data.pkl'):
                data, count = re.subn(rb'numpy\._?core\.', f'numpy.{core}.'.encode(), data)
                assert count == 2
            new.writestr(name, data)
    assert set(read_state_dict(renamed)) == set(golden.state_dict)
    # mmengine's own reading, which resumes with it, too
    found = CheckpointLoader.load_checkpoint(str(renamed), map_location='cpu')
    assert found['loss'].mean() == 1.5 and found['lr'] == 0.5


def test_unreadable_files_are_named(golden, tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*nowhere.pth'):
        read_state_dict(tmp_path / 'nowhere.pth')
    with pytest.raises(FileNotFoundError, match='is a folder, no checkpoint'):
        read_state_dict(tmp_path)
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
