"""Fused kernels: on a GPU if there is one, else in Triton's interpreter."""

import os

import pytest
import torch

# Read when Triton is imported, which nothing has done yet when this file is.
if not torch.cuda.is_available():
    os.environ.setdefault('TRITON_INTERPRET', '1')


@pytest.fixture(scope='session')
def device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'
