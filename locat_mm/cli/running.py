"""Starts other tools as a user would, shows their progress and keeps their output."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

__all__ = ['run_command', 'tool_command']

#: the parts of mmengine's log lines that state the progress
_PROGRESS = re.compile(r'(Epoch|Iter)\((train|val|test)\)[ \[\]\d/]+|eta: [\d:]+|loss: [\d.]+')


def tool_command(tools: Path, name: str, args: list[str], processes: int = 1) -> list[str]:
    """The command line of a tool; several processes start through the dist tools.

    Args:
        tools: the folder of the tools.
        name: of the tool, without suffix; ``'train'`` or ``'test'`` for several processes.
        args: of the tool; the config, and the checkpoint of ``'test'``, come first.
        processes: one for each GPU.
    """
    if processes == 1:
        return [sys.executable, str(tools / f'{name}.py'), *args]
    count = 2 if name == 'test' else 1  # config and checkpoint, or the config
    return ['bash', str(tools / f'dist_{name}.sh'), *args[:count], str(processes), *args[count:]]


def run_command(label: str, log: Path, command: list[str]) -> None:
    """Run a tool. Print one progress line every ten seconds; write the whole output to a log.

    If this process is stopped meanwhile (Ctrl-C, SystemExit), the tool gets SIGTERM, on which a
    training saves a checkpoint, and is waited for.

    Args:
        label: of the progress lines.
        log: the file of the output.
        command: what to run.

    Raises:
        SystemExit: if the tool fails; the end of its output is printed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last_lines: deque[str] = deque(maxlen=30)
    last_shown = time.monotonic()
    # One thread each: several models or processes run at the same time.
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable}
    with (
        open(log, 'w', buffering=1, encoding='utf-8') as file,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                last_lines.append(line)
                found = [' '.join(m.group().split()) for m in _PROGRESS.finditer(line)]
                if found and time.monotonic() - last_shown > 10:
                    last_shown = time.monotonic()
                    print(f'  {label}: {", ".join(found)}', flush=True)
        except (KeyboardInterrupt, SystemExit):
            process.terminate()
            raise
    if process.returncode:
        sys.stderr.writelines(last_lines)
        raise SystemExit(f'{label} failed (exit {process.returncode}); its whole output: {log}')
