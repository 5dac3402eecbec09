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

A fused kernel would move none of them. It would compute what the Triton kernels compute, on a
window of 7 × 7.

Assumptions: memory runs at 80 % of its bandwidth and matrix products at 50 % of the peak. A step
of Swin consists of its matrix products (3 forward passes) and of 250 bytes for each channel of
each token of each block (norms, window partition, residuals, MLP; forward and backward). Real
steps are longer, so the shares are upper limits. The kernels have the efficiency of
expected_speed.py.
"""

import argparse

from expected_speed import B200, H100, Card, locat, plain

__all__ = ['extra_logits', 'main']

_WINDOW, _HEAD_DIM = 7, 32
_FORWARD, _BACKWARD = 4 + 8 + 6 + 2, 24 + 2 + 6
_BYTES_PER_CHANNEL = 250
#: depths, channels of the first stage, GMACs at 224²
SIZES = {
    'Tiny': ((2, 2, 6, 2), 96, 4.49),
    'Small': ((2, 2, 18, 2), 96, 8.74),
    'Base': ((2, 2, 18, 2), 128, 15.43),
}
#: FlashAttention-2's time over that of its operations, forward and backward at N = 512
_SLOWER = 2.5


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
    ours = sum(work.seconds(card) for work in locat(_WINDOW, 0, _HEAD_DIM, card.major).values())
    theirs = sum(work.seconds(card) for work in plain(tokens, _HEAD_DIM))
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
