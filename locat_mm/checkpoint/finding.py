"""The checkpoints that a run can be resumed from."""

import logging
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log

from .reading import find_zip_damage

__all__ = ['find_resumable', 'whole_checkpoints']


def find_resumable(work_dir: str | Path) -> str | None:
    """The latest whole checkpoint of a run, or None if there is none.

    Args:
        work_dir: of the run.
    """
    return next(whole_checkpoints(work_dir), None)


def whole_checkpoints(work_dir: str | Path) -> Iterator[str]:
    """The checkpoints of a run, newest first; damaged ones are skipped with a warning.

    Checkpoints of the best score are omitted because they have no optimizer state. If the newest
    is remote or a folder (sharded), it is the only one, and it is not checked.

    Args:
        work_dir: of the run.
    """
    mark = Path(work_dir) / 'last_checkpoint'
    named = mark.read_text().strip() if mark.is_file() else ''
    if '://' in named or (named and Path(named).is_dir()):
        yield named
        return
    files = [path for path in Path(work_dir).glob('*.pth') if not path.name.startswith('best_')]
    files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in dict.fromkeys([*([Path(named)] if named else []), *files]):
        problem = find_zip_damage(path)
        if problem is None:
            yield str(path)
        else:
            print_log(f'{path} is skipped: {problem}', 'current', logging.WARNING)
