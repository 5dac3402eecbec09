"""Expected times of the Triton kernels on GPUs, from operation counts: a prediction to be tested.

``python benchmarks/expected_speed.py`` prints the tables of docs/kernels.md. Nothing is measured.

Operations of one logit (one query and one key of one head, head width d). A fused multiply-add is
one fp32 operation, and two of a tensor core:

================  ======  =================  ===============================================
kernel            tensor  special functions  fp32
================  ======  =================  ===============================================
plain forward     4d      1                  3: scale, maximum, sum
forward           4d      1 + r + c          4: and the bias; one more with padded tiles
plain backward    10d     1                  4: scale, subtract δ, multiply, convert
backward queries  6d      1 + r + c          9: and the bias, two products, two sums
backward keys     8d      1 + r + c          6: and the bias and its factor
================  ======  =================  ===============================================

r and c are the exponentials of the row and column factors, which many logits share. For each query
there is one a row in every tile, and one a column in every strip of tiles (``backward keys``: in
every tile).

Assumptions:

1. The units of a multiprocessor work one after another.
2. The kernels have the efficiency of FlashAttention-2 under assumption 1. It follows from the
   published figures for head width 64 on an H100, in TFLOP/s at N = 512, 1k, 2k and 4k: forward
   282, 306, 318, 321; forward and backward 215, 254, 274, 288. N = 197 takes that of 512.
3. Padding costs as much as work: queries are padded to blocks, keys to tiles.
4. A B200 has the efficiency of an H100.
"""

import argparse
import math
from typing import NamedTuple

import torch

from locat_mm.ops.backends.tile_sizes import tile_sizes

__all__ = ['Card', 'Work', 'expected', 'main']

_FLASH_FORWARD = {512: 282, 1024: 306, 2048: 318, 4096: 321}
_FLASH_BOTH = {512: 215, 1024: 254, 2048: 274, 4096: 288}


class Card(NamedTuple):
    """Operations per second (tensor: bf16 FLOP, dense), and bytes per second."""

    name: str
    major: int
    tensor: float
    special: float
    fp32: float
    bytes: float


#: Multiprocessors × operations per clock × clock. Data sheets: dense bf16 and memory bandwidth.
H100 = Card('H100 SXM', 9, 989e12, 132 * 16 * 1.83e9, 132 * 128 * 1.83e9, 3.35e12)
B200 = Card('B200', 10, 2250e12, 148 * 16 * 1.85e9, 148 * 128 * 1.85e9, 8.0e12)


class Work(NamedTuple):
    """Operations and bytes of a kernel for one head."""

    tensor: float
    special: float
    fp32: float
    bytes: float

    def seconds(self, card: Card) -> float:
        """With the units one after another, or the memory's time if that is longer."""
        units = self.tensor / card.tensor + self.special / card.special + self.fp32 / card.fp32
        return max(units, self.bytes / card.bytes)

    def __add__(self, other: 'Work') -> 'Work':  # type: ignore[override]
        return Work(*(a + b for a, b in zip(self, other, strict=True)))


def plain(num_tokens: int, head_dim: int) -> tuple[Work, Work]:
    """Forward and backward of plain attention in FlashAttention-2's blocks of 128 and 64."""
    logits = _padded(num_tokens, 128) * _padded(num_tokens, 64)
    vectors = 2 * num_tokens * head_dim  # bytes of q, k, v or the output in bf16
    forward = Work(4 * head_dim * logits, logits, 3 * logits, 4 * vectors)
    return forward, Work(10 * head_dim * logits, logits, 4 * logits, 8 * vectors)


def locat(side: int, prefix: int, head_dim: int, major: int) -> dict[str, Work]:
    """The three kernels for a grid of side × side patches."""
    num_tokens = prefix + side * side
    vectors, gaussians = 2 * num_tokens * head_dim, 12 * side * side
    counts = dict(forward=(4, 4), backward_queries=(6, 9), backward_keys=(8, 6))
    tensors = dict(forward=4, backward_queries=6, backward_keys=6)
    work = {}
    for kernel, (products, fp32) in counts.items():
        sizes = tile_sizes(kernel, head_dim, (side, side), torch.bfloat16, major)
        strips, groups = math.ceil(side / sizes.cols), math.ceil(side / sizes.rows)
        keys = strips * groups * sizes.rows * sizes.cols
        if prefix > side * (strips * sizes.cols - side):  # the padding has no room for them
            keys += _padded(prefix, 16)
        queries = _padded(num_tokens, sizes.queries)
        logits = queries * keys
        per_tile = sizes.rows + (sizes.cols if kernel == 'backward_keys' else 0)
        factors = queries * strips * (groups * per_tile + sizes.cols)
        padded = strips * sizes.cols > side or groups * sizes.rows > side
        work[kernel] = Work(
            products * head_dim * logits,
            logits + factors,
            (fp32 + (padded and kernel != 'backward_keys')) * logits,
            tensors[kernel] * vectors + gaussians,
        )
    return work


def expected(side: int, prefix: int, head_dim: int, card: Card) -> dict[str, float]:
    """Seconds for one head: ``flash``, ``flash_both``, and ``forward``, ``both`` of LocAt."""
    num_tokens = prefix + side * side
    nearest = min(_FLASH_FORWARD, key=lambda n: abs(math.log(n / max(num_tokens, 512))))
    # What FlashAttention-2 takes, as published, for an unpadded N on an H100.
    forward, backward = plain(nearest, 64)
    flops = 4 * 64 * nearest**2
    slower = flops / (_FLASH_FORWARD[nearest] * 1e12) / forward.seconds(H100)
    slower_both = 3.5 * flops / (_FLASH_BOTH[nearest] * 1e12) / (forward + backward).seconds(H100)
    forward, backward = plain(num_tokens, head_dim)
    ours = locat(side, prefix, head_dim, card.major)
    both = ours['forward'] + ours['backward_queries'] + ours['backward_keys']
    return dict(
        flash=slower * forward.seconds(card),
        flash_both=slower_both * (forward + backward).seconds(card),
        forward=slower * ours['forward'].seconds(card),
        both=slower_both * both.seconds(card),
    )


def _padded(count: int, block: int) -> int:
    return math.ceil(count / block) * block


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    print('Operations of one head, in millions (H100 tile sizes, head width 64, bf16):\n')
    print('| N | kernel | tensor | special | fp32 | kB |\n|---|---|---|---|---|---|')
    grids = ((14, 1), (32, 1), (64, 1))
    for side, prefix in grids:
        num_tokens = prefix + side * side
        forward, backward = plain(num_tokens, 64)
        rows = {'plain forward': forward, 'plain backward': backward}
        rows |= {k.replace('_', ' '): w for k, w in locat(side, prefix, 64, H100.major).items()}
        for name, work in rows.items():
            numbers = ' | '.join(f'{x / 1e6:.2f}' for x in work[:3])
            print(f'| {num_tokens:,} | {name} | {numbers} | {work.bytes / 1e3:.0f} |')
    print('\nExpected time of a layer, batch 32, in µs, and the ratio FlashAttention-2 / LocAt:\n')
    print('| card | model | N | FA2 forward | LocAt | ratio | FA2 both | LocAt | ratio |')
    print('|---|---|---|---|---|---|---|---|---|')
    for card in (H100, B200):
        for model, heads in (('Tiny', 3), ('Base', 12)):
            for side, prefix in grids:
                times = expected(side, prefix, 64, card)
                flash, flash_both, ours, both = (1e6 * 32 * heads * t for t in times.values())
                forward = f'{flash:.0f} | {ours:.0f} | {flash / ours:.2f}'
                backward = f'{flash_both:.0f} | {both:.0f} | {flash_both / both:.2f}'
                print(
                    f'| {card.name} | {model} | {prefix + side * side:,} | {forward} | {backward} |'
                )


if __name__ == '__main__':
    main()
