"""A small digit_scenes in a working directory of its own, and the tools run there."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Workplace:
    """A folder with ``data/digit_scenes``; runs the tools as a user would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, script: str, *args) -> list[str]:
        runner = ['bash'] if script.endswith('.sh') else [sys.executable]
        return [*runner, str(ROOT / 'tools' / script), *map(str, args)]

    @property
    def env(self) -> dict:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = str(free.getsockname()[1])
        return {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PORT': port}

    def run(self, script: str, *args, fails: bool = False) -> str:
        """Run a tool; return what it printed."""
        done = subprocess.run(
            self.command(script, *args),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert (done.returncode != 0) == fails, done.stdout[-3000:]
        return done.stdout


def demo_config(name: str) -> Path:
    return ROOT / 'configs' / 'demo' / f'{name}.py'


@pytest.fixture(scope='session')
def workplace(tmp_path_factory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp('workplace'))
    place.run('dataset_converters/digit_scenes.py', '--objects', 128, 40, '--scenes', 24, 6)
    return place
