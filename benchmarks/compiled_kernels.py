"""Compile every Triton kernel for GPUs that need not be there, and tell what the compiler made.

The launcher's own code chooses tile sizes and specialisations; only the launch itself is left out.
Registers, stack and shared memory come from the compiler, instructions from the disassembly:

- tensor: instructions on tensor cores (HMMA, HGMMA, UTCHMMA …);
- special: instructions of the special-function units (MUFU: exp2, log2, division);
- spills: loads and stores of spilled registers, in all and inside of loops.

``python benchmarks/compiled_kernels.py`` prints a table of the kernels for heads of 64 channels,
and of the windows' for heads of 32. ``--all`` compiles every case and prints one line per card. It
fails if a kernel does not compile or needs more shared memory than a card has.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from unittest import mock

# Kernels that are decorated for the interpreter cannot be compiled.
os.environ.pop('TRITON_INTERPRET', None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.errors import CompilationError
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from locat_mm.ops.backends import triton_launch as attention
from locat_mm.ops.backends import triton_parameters as parameters
from locat_mm.ops.backends import triton_windows as windows
from locat_mm.ops.geometry import Geometry

__all__ = ['CARDS', 'Case', 'Compiled', 'compile_case', 'every_case', 'sample']

#: Compute capability -> name, and the shared memory of a block in KiB.
CARDS = {
    80: ('A100', 163),
    86: ('RTX 30', 99),
    89: ('L40, RTX 40', 99),
    90: ('H100, H200', 227),
    100: ('B200', 227),
    120: ('RTX 50', 99),
}
_HEAD_DIMS = (16, 32, 64, 80, 96, 128)
_MAX_WINDOW_HEAD = 64  # the kernels of windows refuse wider heads
_DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
_TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'


@dataclass(frozen=True)
class Case:
    """An input of the attention."""

    grid: tuple[int, int]
    prefix: int = 1
    clamped: bool = False
    head_dim: int = 64
    dtype: str = 'bf16'
    rotated: bool = False
    window: bool = False

    def __str__(self) -> str:
        more = ''.join(f' {x}' for x in ('clamped', 'rotated', 'window') if getattr(self, x))
        return f'{self.dtype} d{self.head_dim} {self.grid[0]}×{self.grid[1]}+{self.prefix}{more}'


@dataclass
class Compiled:
    """What the compiler made of one kernel for one card; sizes in bytes."""

    card: int
    case: str
    head_dim: int
    kernel: str
    registers: int
    stack: int
    shared: int
    tensor: int
    special: int
    fused: int  # multiply-adds of float32 in one instruction
    spills: int
    spills_in_loops: int


class _AbsentDriver:
    """A GPU driver that only says which card to compile for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget('cuda', capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch  # Triton keeps compiled kernels by device

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def sample(sides: list[int]) -> Iterator[Case]:
    """One input per kernel and side of a square grid."""
    for rotated in (False, True):
        for side in sides:
            yield Case((side, side), rotated=rotated)
        yield Case((7, 7), 0, head_dim=32, rotated=rotated, window=True)


def every_case() -> Iterator[Case]:
    """Every combination of dtype, head width, grid and kernel."""
    for dtype in _DTYPES:
        for head_dim in _HEAD_DIMS:
            # A fold needs padding columns: 14 of 16. 32 columns have none. 7 and 12 mask rows.
            for grid, prefix, clamp in (
                *(((14, 14), 1, False), ((14, 14), 0, False), ((32, 32), 1, False)),
                *(((32, 32), 0, False), ((32, 32), 5, True), ((7, 12), 0, True)),
            ):
                for rotated in (False, True):
                    yield Case(grid, prefix, clamp, head_dim, dtype, rotated)
            if head_dim > _MAX_WINDOW_HEAD:
                continue
            for grid, prefix, clamp in (((7, 7), 0, False), ((8, 8), 0, True), ((3, 4), 1, False)):
                for rotated in (False, True):
                    yield Case(grid, prefix, clamp, head_dim, dtype, rotated, window=True)


def compile_case(case: Case, card: int) -> dict[str, object]:
    """Compile the kernels of one input for one card: five, or the two of a window.

    Returns:
        kernel -> Triton's compiled kernel, or the error.
    """
    found: dict[str, object] = {}

    def record(self: JITFunction, grid: tuple) -> object:
        def launch(*args: object, **options: object) -> None:
            try:
                found[self.__name__] = self.warmup(*args, grid=grid, **options)
            except (RuntimeError, CompilationError) as error:
                found[self.__name__] = error

        return launch

    height, width = case.grid
    longest = float((max(case.grid) - 1) ** 2)
    geometry = Geometry(height, width, case.prefix, 0.1, longest / 2 if case.clamped else longest)
    num_patches, dtype = height * width, _DTYPES[case.dtype]
    empty = torch.empty
    with torch.device('meta'):
        qkv = empty(2, case.prefix + num_patches, 3, 3, case.head_dim, dtype=dtype)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        variance, alpha = empty(2, 3, num_patches, 2), empty(2, 3, num_patches)
        rows = 4 if case.rotated else 3
        weight, bias = empty(rows, case.head_dim), empty(rows)
        num_tokens = q.shape[2]
        dense = empty(1, 3, num_tokens, num_tokens)
    driver.set_active(_AbsentDriver(card))
    with (
        mock.patch.object(JITFunction, '__getitem__', record),
        mock.patch.object(attention, 'capability', lambda device: divmod(card, 10)),
        mock.patch.object(windows, 'capability', lambda device: divmod(card, 10)),
    ):
        correlation = alpha if case.rotated else None
        tensors = q, k, v, variance, alpha, correlation
        gaussians = (variance, alpha, alpha) if case.rotated else (variance, alpha)
        limits = 196.0, 0.95 if case.rotated else None, case.prefix
        if case.window:
            tensors = q, k, v, variance, alpha, dense, alpha if case.rotated else alpha[:0]
            out = windows.run_forward(*tensors, geometry, 0.125)
            windows.run_backward(*tensors, out, geometry, 0.125)
            return _named(found)
        out, lse = attention.run_forward(*tensors, geometry, 0.125)
        attention.run_backward(*tensors, out, lse, torch.empty_like(out), geometry, 0.125)
        parameters.run_forward(q, weight, bias, *limits)
        parameters.run_backward(q, weight, bias, gaussians, *limits)
    return _named(found)


def _named(found: dict[str, object]) -> dict[str, object]:
    """As the tables name the kernels."""
    return {k.removesuffix('_kernel').replace('_', ' '): x for k, x in found.items()}


def inspect(card: int, case: Case, kernel: str, compiled: object) -> Compiled:
    """Read the compiled code."""
    shared: int = compiled.metadata.shared  # type: ignore[attr-defined]
    found = _measure(compiled.asm['cubin'])  # type: ignore[attr-defined]
    return Compiled(card, str(case), case.head_dim, kernel, shared=shared, **found)


@cache  # inputs that need the same specialisation share a program
def _measure(cubin: bytes) -> dict[str, int]:
    """Registers, stack and instructions of one program."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        usage = _run('cuobjdump', '-res-usage', file.name)
        code = _run('nvdisasm', '-c', file.name)
    numbers = {key: int(value) for key, value in re.findall(r'(REG|STACK):(\d+)', usage)}
    lines = code.splitlines()
    return dict(
        registers=numbers['REG'],
        stack=numbers['STACK'],
        tensor=_count(r'\b(HMMA|HGMMA|UTC\w*MMA|QGMMA|DMMA)\b', lines),
        special=_count(r'\bMUFU\b', lines),
        fused=_count(r'\bFFMA2?\b', lines),
        spills=_count(r'\b(LDL|STL)\b', lines),
        spills_in_loops=sum(_count(r'\b(LDL|STL)\b', loop) for loop in _loops(lines)),
    )


def _run(tool: str, *args: str) -> str:
    return subprocess.run([_TOOLS / tool, *args], check=True, capture_output=True, text=True).stdout


def _count(pattern: str, lines: list[str]) -> int:
    return sum(bool(re.search(pattern, line)) for line in lines)


def _loops(lines: list[str]) -> list[list[str]]:
    """The outermost loops: stretches of code that end in a branch back to their start."""
    labels = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r'\s*(\.L_x_\d+):', line))}
    spans = []
    for end, line in enumerate(lines):
        branch = re.search(r'\bBRA\b.*`\((\.L_x_\d+)\)', line)
        if branch and labels.get(branch[1], end) < end:
            spans.append((labels[branch[1]], end))
    # A branch to itself ends the program.
    spans = [(start, end) for start, end in spans if end - start > 2]
    outer = [a for a in spans if not any(a != b and b[0] <= a[0] and a[1] <= b[1] for b in spans)]
    return [lines[start:end] for start, end in outer]


def table(rows: list[Compiled]) -> str:
    """Markdown."""
    lines = [
        '| card | input | kernel | registers | stack | shared (KiB) | tensor | special | spills '
        '| in loops |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    for r in rows:
        lines.append(
            f'| {r.card / 10:.1f} {CARDS[r.card][0]} | {r.case} | {r.kernel} | {r.registers} | '
            f'{r.stack} | {r.shared / 1024:.1f} | {r.tensor} | {r.special} | {r.spills} | '
            f'{r.spills_in_loops} |'
        )
    return '\n'.join(lines)


def summary(rows: list[Compiled]) -> str:
    """Markdown: per card the kernels, and how many of each head width spill in a loop."""
    groups = [(False, head_dim) for head_dim in _HEAD_DIMS]
    groups += [(True, head_dim) for head_dim in _HEAD_DIMS if head_dim <= _MAX_WINDOW_HEAD]
    names = [f'{"windows, " * window}d{head_dim}' for window, head_dim in groups]
    lines = [
        f'| card | kernels | shared, most (KiB) | of | {" | ".join(names)} |',
        '|---' * (4 + len(groups)) + '|',
    ]
    for card in dict.fromkeys(row.card for row in rows):
        name, limit = CARDS[card]
        of_card = [row for row in rows if row.card == card]
        most = max(row.shared for row in of_card) / 1024
        cells = [f'{card / 10:.1f} {name}', str(len(of_card)), f'{most:.1f}', str(limit)]
        for group in groups:
            found = [r for r in of_card if (r.kernel.startswith('window'), r.head_dim) == group]
            cells.append(f'{sum(r.spills_in_loops > 0 for r in found)} of {len(found)}')
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--all', action='store_true', help='every dtype, head width and grid')
    which.add_argument(
        '--sides', type=int, nargs='+', default=[14, 32], help='of square grids, in patches'
    )
    parser.add_argument('--cards', type=int, nargs='+', default=list(CARDS), help='such as 80 90')
    parser.add_argument('--out', metavar='FILE.json', help='write a row per kernel there, too')
    args = parser.parse_args(argv)
    inputs = list(every_case() if args.all else sample(args.sides))
    rows, failures = [], []
    todo = [(card, case) for card in args.cards for case in inputs]
    for number, (card, case) in enumerate(todo, 1):
        for kernel, compiled in compile_case(case, card).items():
            if isinstance(compiled, Exception):
                failures.append(f'{card} {case} {kernel}: {str(compiled).splitlines()[0]}')
                continue
            row = inspect(card, case, kernel, compiled)
            rows.append(row)
            if row.shared > CARDS[card][1] * 1024:
                failures.append(f'{card} {case} {kernel}: {row.shared} bytes of shared memory')
        if sys.stderr.isatty() or number % 20 == 0 or number == len(todo):
            print(f'[{number}/{len(todo)}] {card} {case}', file=sys.stderr, flush=True)
    print(summary(rows) if args.all else table(rows))
    print(
        f'\n{len(rows)} kernels compiled, {_measure.cache_info().currsize} programs, '
        f'{len(failures)} failures; Triton {triton.__version__}'
    )
    if args.out:
        Path(args.out).write_text(json.dumps([asdict(row) for row in rows], indent=1) + '\n')
    if failures:
        raise SystemExit('\n'.join(failures))


if __name__ == '__main__':
    main()
