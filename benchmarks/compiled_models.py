"""Plain ViT and LocAtViT (GAug and PRR) with ``torch.compile`` and without, as classifiers.

The models run in turn within a round, in one process. Printed are medians over the rounds, and the
medians of the ratios within a round: to plain ViT, and to compiled plain ViT.

``python benchmarks/compiled_models.py --rounds 15``
"""

import argparse
import statistics
import sys

import torch
from attention_cases import MODES, PLAIN, Case
from attention_model import add_arguments, prepare
from measure import alternate, markdown, median_ratio, provenance

__all__ = ['main']

#: name -> (variant, compiled). On the CPU ``torch.compile`` takes the backend eager.
_MODELS = {
    'ViT': (PLAIN, False),
    'LocAtViT': ('chunked', False),
    'ViT, compiled': (PLAIN, True),
    'LocAtViT, compiled': ('eager', True),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = []
    for mode in MODES:
        print(f'{mode}: models are compiled in the first round', flush=True)
        settings = mode, args.arch, args.size, args.batch_size, 'cpu', torch.float32
        calls = {
            name: prepare(Case('model', variant, *settings), compiled)
            for name, (variant, compiled) in _MODELS.items()
        }
        times = alternate(calls, args.rounds, 'cpu', iterations=1)
        for name, seconds in times.items():
            ratios = [median_ratio(seconds, times[x]) for x in ('ViT', 'ViT, compiled')]
            cells = f'{1e3 * statistics.median(seconds):.1f}', *(f'{x:.2f}' for x in ratios)
            rows.append([mode, name, *cells])
    command = sys.argv[1:] if argv is None else argv
    source = provenance('compiled_models.py', command, 'cpu', torch=torch.__version__)
    print(f'\n{source}. Medians of {args.rounds} rounds.\n')
    print(markdown(('mode', 'model', 'ms', '/ ViT', '/ ViT, compiled'), rows, num_left=2))


if __name__ == '__main__':
    main()
