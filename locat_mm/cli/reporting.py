"""One message in words when a tool fails, above Python's traceback."""

import functools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ['reports_errors']

#: Errors raised in these folders have texts for users and need no type or place.
_OWN = (str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / 'tools'))


def reports_errors(main: Callable) -> Callable:
    """Decorate a tool's ``main``: explain an exception on stderr, then raise it.

    The message states what the tool was doing (the innermost note of
    :func:`locat_mm.helpers.doing`), the tool's arguments, the error and any other notes. The
    arguments are those given to ``main``, or ``sys.argv``. ``SystemExit`` and
    ``KeyboardInterrupt`` are left alone.
    """

    @functools.wraps(main)
    def reporting(argv: Sequence[str] | None = None) -> Any:
        try:
            return main() if argv is None else main(argv)
        except Exception as error:
            sys.stdout.flush()
            text = _describe(error, sys.argv[1:] if argv is None else argv)
            print(f'\n{text}\n', file=sys.stderr, flush=True)
            raise

    return reporting


def _describe(error: Exception, argv: Sequence[str]) -> str:
    notes = list(getattr(error, '__notes__', ()))
    activity = next((note for note in notes if note.startswith('while ')), '')
    if activity:
        notes.remove(activity)
    size = int(os.environ.get('WORLD_SIZE', 1))
    process = f' (process {os.environ.get("RANK", 0)} of {size})' if size > 1 else ''
    first = f'ERROR: {Path(sys.argv[0]).name} failed {activity}'.rstrip()
    lines = [f'{first}, with {shlex.join(argv) or "no arguments"}{process}', _words(error), *notes]
    return '\n  '.join(line.replace('\n', '\n  ') for line in lines)


def _words(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if 'Original Traceback' in text:  # from a worker of a data loader: the error is at the end
        starts = [match.start() for match in re.finditer(r'(?m)^[\w.]+: ', text)]
        text = text[starts[-1] :].strip() if starts else text
    place = traceback.extract_tb(error.__traceback__)[-1]
    if place.filename.startswith(_OWN) and text:
        return text
    return f'{type(error).__name__}: {text} (raised at {place.filename}:{place.lineno})'
