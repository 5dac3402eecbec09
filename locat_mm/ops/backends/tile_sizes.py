"""How large a part of its work each Triton kernel does in one step, per GPU architecture.

The sizes are chosen from the compiler's output (``benchmarks/compiled_kernels.py``), not yet from
timings. At a head dimension of 64 no registers are spilled inside a loop; as many warps as that
allows are resident; then the tile is as large as possible.
"""

import functools
import itertools
from typing import NamedTuple

import torch

__all__ = ['TileSizes', 'tile_sizes', 'window_warps']


class TileSizes(NamedTuple):
    """A block of queries, a tile of rows × cols keys, and the resources of a program."""

    queries: int
    rows: int
    cols: int
    num_warps: int
    num_stages: int
    max_registers: int | None


class _Choice(NamedTuple):
    queries: int
    keys: tuple[int, ...]  # rows · cols
    cols: tuple[int, ...]
    num_warps: int
    num_stages: int = 2
    max_registers: int | None = None


#: Kernel -> largest head dimension -> choice, for half types. ``rotated_...`` is for Gaussians with
#: a correlation, where they need other sizes.
_Table = dict[str, dict[int, _Choice]]
#: Compute capability 8 (Ampere, Ada) and 12 (consumer Blackwell): HMMA, operands in registers.
_AMPERE: _Table = {
    'forward': {
        64: _Choice(128, (32,), (8, 16, 32), 8, max_registers=128),
        128: _Choice(128, (32,), (8, 16, 32), 8),
    },
    'rotated_forward': {
        64: _Choice(128, (32,), (8, 16, 32), 8, max_registers=168),
        128: _Choice(128, (32,), (8, 16, 32), 8),
    },
    'backward_queries': {
        64: _Choice(64, (32,), (8, 16), 4),
        128: _Choice(64, (32,), (8, 16), 4),
    },
    'backward_keys': {
        64: _Choice(64, (32,), (8, 16), 4, max_registers=168),
        128: _Choice(64, (32,), (8, 16), 4),
    },
}
#: Compute capability 9 (Hopper): HGMMA reads operands from shared memory.
_HOPPER: _Table = {
    'forward': {
        64: _Choice(64, (64,), (8, 16, 32), 4, max_registers=168),
        128: _Choice(128, (64,), (8, 16, 32), 8),
    },
    'backward_queries': {
        64: _Choice(64, (32,), (8, 16), 4, max_registers=168),
        128: _Choice(64, (32,), (8, 16), 4),
    },
    'rotated_backward_queries': {
        64: _Choice(64, (32,), (8, 16), 4),
        128: _Choice(64, (32,), (8, 16), 4),
    },
    'backward_keys': {
        64: _Choice(64, (64,), (8, 16), 4),
        128: _Choice(64, (64,), (8, 16), 4),
    },
}
#: Compute capability 10 (data-centre Blackwell): accumulators in tensor memory.
_BLACKWELL: _Table = {
    'forward': {
        64: _Choice(128, (64,), (8, 16, 32), 8),
        128: _Choice(128, (64,), (8, 16, 32), 8),
    },
    'backward_queries': {
        64: _Choice(64, (32,), (8, 16), 4),
        128: _Choice(64, (32,), (8, 16), 4),
    },
    'rotated_backward_queries': {
        64: _Choice(64, (32,), (8, 16), 8),
        128: _Choice(64, (32,), (8, 16), 8),
    },
    'backward_keys': {
        64: _Choice(64, (64,), (8, 16), 8, max_registers=128),
        128: _Choice(64, (64,), (8, 16), 8),
    },
}
#: float32 without TF32 uses no tensor cores: the operands of a product fill registers.
_FLOAT32: _Table = {
    'forward': {
        32: _Choice(32, (32,), (8, 16, 32), 4),
        64: _Choice(32, (32,), (8, 16, 32), 4, max_registers=168),
        128: _Choice(32, (32,), (8, 16, 32), 4),
    },
    'backward_queries': {
        64: _Choice(32, (32,), (8, 16), 4),
        128: _Choice(32, (32,), (8, 16), 8),
    },
    'backward_keys': {
        64: _Choice(32, (32,), (8, 16), 4),
        128: _Choice(32, (16,), (8, 16), 4),
    },
}
_BY_MAJOR = {9: _HOPPER, 10: _BLACKWELL}


@functools.cache
def tile_sizes(
    kernel: str,
    head_dim: int,
    grid_size: tuple[int, int],
    dtype: torch.dtype,
    major: int,
    rotated: bool = False,
) -> TileSizes:
    """Sizes for a kernel: an entry of the tables, with the tile that pads the grid least.

    Among equal paddings the largest tile wins, then the widest: the Gaussian of a column is
    computed once per strip of columns, that of a row in every tile. Below 8 columns the compiler
    does not see which keys of a thread share a column.

    Args:
        kernel: ``'forward'``, ``'backward_queries'`` or ``'backward_keys'``.
        head_dim: channels of a head.
        grid_size: patches along (rows, columns).
        dtype: of q, k and v.
        major: the first number of the GPU's compute capability.
        rotated: the Gaussians have a correlation. They have an entry of their own where they need
            more registers.
    """
    table = _FLOAT32 if dtype == torch.float32 else _BY_MAJOR.get(major, _AMPERE)
    choices = table.get(f'rotated_{kernel}' if rotated else kernel, table[kernel])
    choice = choices[min(limit for limit in choices if head_dim <= limit)]
    height, width = grid_size

    def cost(tile: tuple[int, int]) -> tuple[int, int, int]:
        keys, cols = tile
        rows = keys // cols
        return -(-height // rows) * -(-width // cols) * keys, -keys, rows

    keys, cols = min(itertools.product(choice.keys, choice.cols), key=cost)
    return TileSizes(choice.queries, keys // cols, cols, *choice[3:])


def window_warps(dtype: torch.dtype, major: int) -> int:
    """Warps of a program of the kernels of windows, whose tile is the whole window.

    A product of 64 rows takes four warps. Data-centre Blackwell has the accumulators in tensor
    memory, and float32 needs the registers.

    Args:
        dtype, major: as for :func:`tile_sizes`.
    """
    return 8 if major == 10 or dtype == torch.float32 else 4
