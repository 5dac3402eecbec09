"""Shared set-up of the tests."""

import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]


def pytest_configure():
    torch.set_num_threads(2)


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
