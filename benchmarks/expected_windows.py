"""Expected cost of GAug in Swin's windows on GPUs: a prediction to be tested. Nothing is measured.

``python benchmarks/expected_windows.py`` prints the table of docs/kernels.md. In windows the
``eager`` backend writes one bias per window and head and gives it to torch's attention. Bytes of
one logit that plain Swin does not move (the Gaussian in float32, the attention in bf16):

=============================================  =======  ========
step                                           forward  backward
=============================================  =======  ========
product of the two factors                     4        24
sum with the relative position bias and mask   8        2
conversion to bf16, and of its gradient        6        6
bias read by the attention                     2
=============================================  =======  ========

The fused kernels move none of them. Operations of one logit in a tile of 8 × 8 slots, in the terms
of expected_speed.py, with head width d and the Gaussian's factors of 8 rows and 8 columns for each
query (two sets in the backward pass):

================  ======  =================  ===============================================
kernel            tensor  special functions  fp32
================  ======  =================  ===============================================
forward           4d      1 + 16/64          6: scale, bias, Gaussian, maximum, sum
backward          10d     1 + 32/64          16: and the softmax's gradient, four sums
================  ======  =================  ===============================================

They read q, k, v (backward: and the output's gradient) and write the output (backward: three
gradients) in bf16; the Gaussian's three numbers and their gradients are float32. The bias and its
gradient are shared by the images of a program, and stay in the cache: they count once for 8 images.

Assumptions: memory runs at 80 % of its bandwidth and matrix products at 50 % of the peak. A step
of Swin consists of its matrix products (3 forward passes) and of 250 bytes for each channel of
each token of each block (norms, window partition, residuals, MLP; forward and backward). Real
steps are longer, so the shares are upper limits. The kernels are 2.5 times slower than their
operations, as FlashAttention-2 is in expected_speed.py. Plain attention has the same tile.
"""

import argparse

from expected_speed import B200, H100, Card, Work

__all__ = ['extra_logits', 'main']

_WINDOW, _HEAD_DIM = 7, 32
_FORWARD, _BACKWARD = 4 + 8 + 6 + 2, 24 + 2 + 6
_BYTES_PER_CHANNEL = 250
#: of a program
_IMAGES = 8
#: depths, channels of the first stage, GMACs at 224²
SIZES = {
    'Tiny': ((2, 2, 6, 2), 96, 4.49),
    'Small': ((2, 2, 18, 2), 96, 8.74),
    'Base': ((2, 2, 18, 2), 128, 15.43),
}
#: FlashAttention-2's time over that of its operations, forward and backward at N = 512
_SLOWER = 2.5


def attention(gaussian: bool) -> Work:
    """Forward and backward of one window and head, in a tile of 64 × 64: plain attention, or with
    the Gaussian and the shared bias.
    """
    tokens, logits = _WINDOW**2, 64 * 64
    moved = (4 + 7) * 2 * tokens * _HEAD_DIM
    products = (4 + 10) * _HEAD_DIM * logits
    if not gaussian:
        return Work(products, 2 * logits, (3 + 4) * logits, moved)
    moved += (1 + 2) * (12 * tokens + 4 * tokens**2 / _IMAGES)
    return Work(products, (1.25 + 1.5) * logits, (6 + 16) * logits, moved)


def stages(size: str) -> list[tuple[int, int, int]]:
    """(blocks, windows, channels) of every stage at 224²."""
    depths, channels, _ = SIZES[size]
    return [(depth, (8 >> i) ** 2, channels << i) for i, depth in enumerate(depths)]


def extra_logits(size: str) -> int:
    """Entries of all biases of one image."""
    tokens = _WINDOW**2
    return sum(
        depth * windows * (channels // _HEAD_DIM) * tokens**2
        for depth, windows, channels in stages(size)
    )


def expected(size: str, card: Card) -> tuple[float, float, float]:
    """Seconds of an image: a plain step, the eager bias, the kernels beyond plain attention."""
    tokens = _WINDOW**2
    elements = sum(depth * windows * tokens * channels for depth, windows, channels in stages(size))
    products = 3 * 2 * SIZES[size][2] * 1e9 / (0.5 * card.tensor)
    step = products + elements * _BYTES_PER_CHANNEL / (0.8 * card.bytes)
    eager = extra_logits(size) * (_FORWARD + _BACKWARD) / (0.8 * card.bytes)
    heads = extra_logits(size) / tokens**2
    ours, theirs = (attention(gaussian).seconds(card) for gaussian in (True, False))
    return step, eager, _SLOWER * heads * (ours - theirs)


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    columns = 'card', 'model', 'bias kept (MB)', 'plain step (µs)', 'eager bias (µs)'
    print(f'| {" | ".join((*columns, "kernel (µs)", "saved"))} |')
    print('|---|---|---|---|---|---|---|')
    for card in (H100, B200):
        for size in SIZES:
            step, eager, kernel = (1e6 * x for x in expected(size, card))
            kept = 2 * extra_logits(size) / 1e6
            saved = (eager - kernel) / (step + eager)
            print(
                f'| {card.name} | Swin-{size} | {kept:.1f} | {step:.0f} | {eager:.0f} | '
                f'{kernel:.0f} | {saved:.0%} |'
            )


if __name__ == '__main__':
    main()
