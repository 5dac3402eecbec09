"""Tools that other tools start: their log, their failure, their end."""

import signal
import sys

import pytest

from locat_mm.cli.running import run_command, tool_command
from tests.support import ROOT


def test_a_command_is_logged_and_its_failure_ends_the_caller(tmp_path, capsys):
    log = tmp_path / 'folder' / 'log.txt'
    run_command('label', log, [sys.executable, '-c', 'print("Epoch(train) [1][ 2/3]")'])
    assert log.read_text() == 'Epoch(train) [1][ 2/3]\n'
    with pytest.raises(SystemExit, match=f'label failed .exit 3.; its whole output: {log}'):
        run_command('label', log, [sys.executable, '-c', 'print("no"); exit(3)'])
    assert capsys.readouterr().err == 'no\n'


def test_a_stop_of_the_caller_reaches_the_tool(tmp_path):
    saved = tmp_path / 'saved'
    code = (
        'import signal, sys, time, pathlib\n'
        f'save = lambda *_: (pathlib.Path({str(saved)!r}).touch(), sys.exit(0))\n'
        'signal.signal(signal.SIGTERM, save)\n'
        'print("Epoch(train) [1][ 2/3]", flush=True)\n'
        'time.sleep(60)\n'
    )

    def stop(number, frame):
        if 'Epoch' in (tmp_path / 'log.txt').read_text():
            sys.exit(143)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with pytest.raises(SystemExit) as end:
            run_command('label', tmp_path / 'log.txt', [sys.executable, '-c', code])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert end.value.code == 143 and saved.exists()


def test_several_processes_start_through_the_dist_tools():
    tools = ROOT / 'tools'
    assert tool_command(tools, 'test', ['c.py', 'w.pth', '--tta'], 4) == [
        *('bash', str(tools / 'dist_test.sh'), 'c.py', 'w.pth', '4', '--tta')
    ]
    assert tool_command(tools, 'train', ['c.py', '--amp'], 2)[2:] == ['c.py', '2', '--amp']
    assert tool_command(tools, 'train', ['c.py'])[1:] == [str(tools / 'train.py'), 'c.py']
