"""The newest whole checkpoint of a run."""

import logging
import zipfile
from pathlib import Path

from mmengine.logging import print_log

__all__ = ['find_resumable']


def find_resumable(work_dir: str | Path) -> str | None:
    """The latest whole checkpoint of a run; broken ones are passed over with a warning.

    Args:
        work_dir: of the run.

    Returns:
        its path, or None if there is none.
    """
    mark = Path(work_dir) / 'last_checkpoint'
    named = mark.read_text().strip() if mark.is_file() else ''
    if '://' in named or (named and Path(named).is_dir()):  # remote or sharded: mmengine's
        return named
    latest_first = sorted(Path(work_dir).glob('*.pth'), key=_age, reverse=True)
    candidates = [p for p in latest_first if not p.name.startswith('best_')]  # no optimizer in it
    if named:
        candidates.insert(0, Path(named))
    for path in dict.fromkeys(candidates):
        problem = _problem(path)
        if problem is None:
            return str(path)
        print_log(f'{path} is passed over: {problem}', 'current', logging.WARNING)
    return None


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _problem(path: Path) -> str | None:
    """Why a file is no whole checkpoint of torch's, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        return f'it is truncated or no checkpoint ({error})'
    return None if broken is None else f'its part {broken} is damaged'
