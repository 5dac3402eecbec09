"""What stands between a config and mmengine's Runner."""

from .launch import build_runner, load_config

__all__ = ['build_runner', 'load_config']
