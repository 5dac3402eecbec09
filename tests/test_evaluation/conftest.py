"""Fixtures of the tests of evaluations."""

from pathlib import Path

import pytest

from tests.support.evaluation import write_objects, write_scenes


@pytest.fixture(scope='session')
def objects(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('objects')
    write_objects(folder)
    return folder


@pytest.fixture(scope='session')
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('scenes')
    write_scenes(folder)
    return folder
