"""Fixtures of the tests of checkpoints."""

import huggingface_hub.constants
import pytest

from tests.support.checkpoints import HubCache
from tests.support.golden import Golden


@pytest.fixture
def hub(tmp_path, monkeypatch) -> HubCache:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    return HubCache(tmp_path / 'hub')


@pytest.fixture
def golden() -> Golden:
    return Golden('locatvit')
