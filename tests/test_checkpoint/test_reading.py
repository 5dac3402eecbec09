"""Files are read without executing a pickle; damage is named."""

import argparse
import os

import pytest
import torch
from mmengine.logging import HistoryBuffer

from locat_mm import load_official
from locat_mm.checkpoint import read_state_dict


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
