"""Helpers that several tests share: models, data, configs, and processes that run the tools."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def demo_config(name: str) -> Path:
    return ROOT / 'configs' / 'demo' / f'{name}.py'
