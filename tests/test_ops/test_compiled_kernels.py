"""Kernels compiled for GPUs that are not there: benchmarks/compiled_kernels.py in a process."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec('triton') is None, reason='Triton is not installed'
)


def compile_for(root, out, *options):
    """What the program writes and prints. It cannot run here, where Triton interprets kernels."""
    program = root / 'benchmarks' / 'compiled_kernels.py'
    env = {**os.environ, 'PYTHONPATH': str(root), 'TRITON_CACHE_DIR': str(out.parent / 'cache')}
    env['TRITON_DEFAULT_FP_FUSION'] = '0'  # as from Triton 3.10 on
    command = [sys.executable, str(program), '--out', str(out), *options]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(out.read_text()), result.stdout


def test_kernels_compile_and_spill_nothing_in_loops(root, tmp_path):
    cards = ('80', '100')  # make test-kernels: all
    rows, _ = compile_for(root, tmp_path / 'rows.json', '--sides', '14', '--cards', *cards)
    assert len(rows) == len(cards) * 2 * (5 + 2)  # kernels along the axes and rotated
    assert {row['kernel'] for row in rows} == {
        *('forward', 'backward queries', 'backward keys'),
        *('parameters forward', 'parameters backward', 'window forward', 'window backward'),
    }
    spilled = [row for row in rows if row['spills_in_loops']]
    assert not spilled
    # The products run on tensor cores, in the instructions of each architecture.
    attention = [row for row in rows if 'parameters' not in row['kernel']]
    assert all(row['tensor'] >= 6 for row in attention)
    assert all(row['fused'] for row in rows)


@pytest.mark.kernels
@pytest.mark.parametrize('card', ['80', '86', '89', '90', '100', '120'])
def test_every_kernel_compiles(root, tmp_path, card):
    rows, printed = compile_for(root, tmp_path / 'rows.json', '--all', '--cards', card)
    assert len(rows) == 3 * 2 * (6 * 6 * 5 + 3 * 3 * 2)  # windows: three head widths
    # Libraries print something at their import, too.
    (line,) = (s for s in printed.splitlines() if s.startswith(f'| {int(card) / 10:.1f} '))
    cells = line.split(' | ')
    assert cells[1:3] == [str(len(rows)), f'{max(row["shared"] for row in rows) / 1024:.1f}']
    windows = [row for row in rows if 'window' in row['case']]
    others = [row for row in rows if 'window' not in row['case']]
    groups = [(others, width) for width in (16, 32, 64, 80, 96, 128)]
    groups += [(windows, width) for width in (16, 32, 64)]
    for (group, width), cell in zip(groups, cells[4:], strict=True):
        of_width = [row for row in group if f' d{width} ' in row['case']]
        spilled = [row for row in of_width if row['spills_in_loops']]
        assert cell.removesuffix(' |') == f'{len(spilled)} of {len(of_width)}'
        # docs/kernels.md: of kernels for heads of at most 64, only the windows' spill in a loop.
        assert not spilled or group is windows or width > 64
