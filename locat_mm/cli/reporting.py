"""What a user reads first when a tool fails: one message in words, above Python's traceback."""

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from mmengine.dist import get_dist_info
from mmengine.runner import BaseLoop

from ..checkpoint.finding import find_resumable

__all__ = ['reports_errors']

#: Errors of this code are meant for users and need no explanation.
_OWN = (str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / 'tools'))
#: Methods of mmengine's Runner that build more than one object of a config.
_BUILDERS = {
    f'build_{part}': part
    for part in ('train_loop', 'val_loop', 'test_loop', 'dataloader', 'evaluator')
    + ('optim_wrapper', 'param_scheduler')
}


def reports_errors(main: Callable) -> Callable:
    """Decorate a tool's ``main``: what it raises is told on stderr in words, then raised.

    The message says what the tool was doing, with which config, the error itself, which part
    of the config was being built; if training had begun, where it stood and the last whole
    checkpoint. ``args`` (of the command line) and ``cfg`` are taken from the variables of
    ``main``. ``SystemExit`` and ``KeyboardInterrupt`` are left alone.
    """

    @functools.wraps(main)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except Exception as error:
            sys.stdout.flush()
            print(f'\n{_describe(error)}\n', file=sys.stderr, flush=True)
            raise

    return reporting


def _describe(error: Exception) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    main = frames[1] if len(frames) > 1 else frames[0]  # the first is the decorator's
    args, cfg = main.f_locals.get('args'), main.f_locals.get('cfg')
    lines = [f'ERROR: {Path(sys.argv[0]).name} failed {_doing(frames, cfg)}']
    given = [getattr(args, name, None) for name in ('config', 'src')]
    lines[0] += ''.join(f', with {value}' for value in given if value)
    rank, size = _rank()
    if size > 1:
        lines[0] += f' (process {rank} of {size})'
    lines.append(_words(error, frames[-1]))
    loop = _loop(frames)
    if loop is not None and hasattr(loop, 'run_iter') and _is_training(loop) and rank == 0:
        lines.append(_way_back(loop.runner.work_dir))
    return '\n  '.join(line.replace('\n', '\n  ') for line in lines)


def _doing(frames: list[FrameType], cfg: Any) -> str:
    """In words, from the outermost call that says something to the innermost part built."""
    loop, built = _loop(frames), _built(frames, cfg)
    names = [frame.f_code.co_name for frame in frames]
    if 'parse_args' in names:
        return 'on its arguments'
    if loop is not None:
        if not _is_training(loop):
            return f'while evaluating, by {type(loop).__name__}'
        runner = loop.runner
        return f'in training, at iteration {runner.iter + 1}, epoch {runner.epoch + 1}'
    if built:
        return f'while building {built}'
    parts = [_BUILDERS[name] for name in names if name in _BUILDERS]
    if parts:
        return f'while building its {parts[-1]}'
    for name, doing in (
        ('load_config', 'while reading the config'),
        ('check_fit', 'while comparing a checkpoint with the model'),
        ('check_training_state', 'while comparing a checkpoint with the run'),
        ('load_or_resume', 'while loading the checkpoint'),
        ('read_content', 'while reading a checkpoint'),
        ('read_state_dict', 'while reading a checkpoint'),
        ('init_weights', 'while initialising the weights'),
        ('build_runner', 'while checking the config'),
    ):
        if name in names:
            return doing
    return f'in {frames[-1].f_code.co_name}'


def _built(frames: list[FrameType], cfg: Any) -> str:
    """The innermost object under construction, by its key in the config where it is found."""
    key, found = '', ''
    for frame in frames:
        if frame.f_code.co_name != 'build_from_cfg':
            continue
        part = frame.f_locals.get('cfg')
        if not isinstance(part, dict):
            found = f'{frame.f_locals["registry"].name} of {part!r}'
            continue
        kind = part.get('type', 'an object without type')
        kind = kind if isinstance(kind, str) else getattr(kind, '__name__', repr(kind))
        if isinstance(cfg, dict) or hasattr(cfg, 'items'):
            key = next(_keys(cfg, part, key, ''), '')
        found = f'{key} ({kind})' if key else kind
    return found


def _keys(tree: Any, part: dict, inside: str, key: str) -> Iterator[str]:
    """Dotted keys in a config of what was built from ``part``, those inside another first."""
    matches = [
        name
        for name, node in _nodes(tree, key)
        if node.get('type') == part.get('type') and set(node) <= set(part)
    ]
    yield from sorted(matches, key=lambda name: not name.startswith(inside))


def _nodes(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    is_map = hasattr(tree, 'items')
    if is_map and key:
        yield key, tree
    children = tree.items() if is_map else enumerate(tree) if isinstance(tree, list) else ()
    for name, child in children:
        yield from _nodes(child, f'{key}.{name}' if key else str(name))


def _loop(frames: list[FrameType]) -> Any:
    running = [frame for frame in frames if frame.f_code.co_name != '__init__']
    loops = [frame.f_locals.get('self') for frame in running]
    return next((loop for loop in loops if isinstance(loop, BaseLoop)), None)


def _is_training(loop: Any) -> bool:
    return loop is loop.runner._train_loop


def _words(error: Exception, frame: FrameType) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if 'Original Traceback' in text:  # of a worker: the error itself stands last
        starts = [match.start() for match in re.finditer(r'(?m)^[\w.]+: ', text)]
        text = text[starts[-1] :].strip() if starts else text
    file = frame.f_code.co_filename
    if file.startswith(_OWN) and text:
        return text
    return f'{type(error).__name__}: {text} (raised at {file}:{frame.f_lineno})'


def _way_back(work_dir: str) -> str:
    try:
        last = find_resumable(work_dir)
    except OSError as problem:
        return f'{work_dir} cannot be searched for checkpoints: {problem}'
    if last is None:
        return f'There is no whole checkpoint in {work_dir}: the run has to start anew.'
    return f'The last whole checkpoint is {last}: the same command with --resume goes on from it.'


def _rank() -> tuple[int, int]:
    rank, size = get_dist_info()
    if size == 1:  # perhaps not yet connected
        rank, size = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
    return rank, size
