"""Configs in logs and checkpoints as they are, without yapf."""

import yapf.yapflib.yapf_api as yapf

__all__ = ['skip_config_formatting']


def _leave(text: str, **kwargs: object) -> tuple[str, bool]:
    return text, True


def skip_config_formatting() -> None:
    """mmengine formats the config of a run several times, which takes up to a second each."""
    yapf.FormatCode = _leave
