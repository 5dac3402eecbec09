"""Set-up that all tests share."""

import gc
import os
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

# Without a GPU, Triton's interpreter runs the kernels. The variable is read when Triton is
# imported, which other libraries do; none has done so yet.
assert 'triton' not in sys.modules
if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'

from mmengine.registry import DefaultScope  # noqa: E402

from tests.support import ROOT  # noqa: E402
from tests.support.checkpoints import HubCache  # noqa: E402
from tests.support.formatting import skip_config_formatting  # noqa: E402
from tests.support.workplace import Workplace  # noqa: E402

#: What takes longest starts first, so that no worker has to wait for another one at the end.
SLOW = ('soak', 'integration', 'test_ops/test_backends', 'test_engine', 'test_configs')


def pytest_collection_modifyitems(items):
    def place(item):
        path = str(Path(item.path).relative_to(ROOT / 'tests'))
        return next((i for i, folder in enumerate(SLOW) if path.startswith(folder)), len(SLOW))

    items.sort(key=place)


def pytest_configure():
    # make test runs two workers, with one thread each.
    torch.set_num_threads(1 if 'PYTEST_XDIST_WORKER' in os.environ else 2)
    skip_config_formatting()


@pytest.fixture(scope='session')
def device() -> str:
    """For the fused kernels."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope='module', autouse=True)
def quick_collections():
    """Objects that live until the end are not searched again.

    Every data set of mmengine calls ``gc.collect``, which takes 0.3 s with all libraries imported.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_scope_left_behind():
    """A Runner built in one test sets the scope that the next would resolve names in."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def workplace(tmp_path_factory) -> Workplace:
    """A folder with 128 and 40 images of digits and 24 and 6 scenes. Tests add folders to it."""
    place = Workplace(tmp_path_factory.mktemp('workplace'))
    place.run('dataset_converters/digit_scenes.py', '--objects', 128, 40, '--scenes', 24, 6)
    return place


@pytest.fixture
def hub(tmp_path, monkeypatch) -> HubCache:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    return HubCache(tmp_path / 'hub')
