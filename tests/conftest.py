"""Shared set-up of the tests."""

import os
import sys
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton's interpreter runs the kernels. Read when Triton is imported, which other
# libraries do; nothing has done it yet.
assert 'triton' not in sys.modules
if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'

from mmengine.registry import DefaultScope  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]


def pytest_configure():
    # make test runs two halves side by side, with one thread each.
    torch.set_num_threads(1 if 'PYTEST_XDIST_WORKER' in os.environ else 2)


@pytest.fixture(scope='session')
def device() -> str:
    """For the fused kernels."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_scope_left_behind():
    """A Runner built in one test sets the scope that the next would resolve names in."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT
