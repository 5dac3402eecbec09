"""Fixtures of the tests of checkpoints."""

import pytest

from tests.support.golden import Golden


@pytest.fixture
def golden() -> Golden:
    return Golden('locatvit')
