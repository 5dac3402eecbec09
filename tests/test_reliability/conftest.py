"""The programs of reliability/ are what is tested here; their long versions are commands."""

import sys
from pathlib import Path

from test_tools.conftest import workplace  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2] / 'reliability'))
