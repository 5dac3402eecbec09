"""Measure time and peak memory of LocAt's attention and of plain attention, for each backend.

There are two parts. op: plain scaled_dot_product_attention, Gaussian attention, and PRR. model:
plain ViT and LocAtViT (GAug and PRR), as classifiers. Both parts measure the forward pass, and
forward with backward; a model's training step includes AdamW. The variants run in turn within each
round, so other load on the machine affects all of them. Times and ratios are medians over rounds.
The output is a table, all numbers as JSON, and a plot against the number of tokens.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import math
import sys
from pathlib import Path

import attention_model
import attention_op
import mmpretrain.models  # noqa: F401  before memory is measured
import timm
import torch
from attention_cases import MODES, PARTS, PATCH, PLAIN, PRR, Case, is_too_much, reason_against
from attention_report import draw, make_records, progress, table
from measure import (
    MEMORY,
    alternate,
    device_name,
    in_fresh_processes,
    peak_memory,
    provenance,
)

from locat_mm.models import LocAtViT
from locat_mm.ops import BACKENDS
from locat_mm.ops.gaussian_attention import choose_backend

PREPARE = dict(op=attention_op.prepare, model=attention_model.prepare)
TITLES = dict(op='Operator', model='Model')
#: (largest size, images in a batch)
BATCH_SIZES = {
    'cpu': ((224, 8), (math.inf, 1)),
    'cuda': ((224, 64), (512, 16), (math.inf, 4)),
}
DTYPES = dict(bfloat16=torch.bfloat16, float16=torch.float16)


def measure_memory(case: Case, threads: int) -> float:
    """Measure the peak memory in MiB; on the CPU in a separate process."""
    arguments = (PREPARE[case.part], (case,), case.device, threads, (case.small,))
    if case.device == 'cpu':
        return in_fresh_processes(peak_memory, [arguments], fork=True)[0]
    return peak_memory(*arguments)


def measure_group(cases: list[Case], args: argparse.Namespace) -> list[dict]:
    """Measure cases that differ only in the variant; omitted cases are added to args.left_out."""
    memory = {}
    for case in cases:
        reason = reason_against(case)
        if reason is None:
            try:
                memory[case.variant] = measure_memory(case, args.threads)
            except torch.OutOfMemoryError as error:
                reason = str(error).partition('. GPU ')[0]
        if case.device == 'cuda':
            gc.collect()
            torch.cuda.empty_cache()
            reason = reason or is_too_much(memory[case.variant] * 2**20, case)
        if reason is not None:
            memory.pop(case.variant, None)
            print(f'  {case.variant:8} left out: {reason}', flush=True)
            where = f'{case.part}, {case.arch}, {case.size}², {case.mode}'
            args.left_out.setdefault((case.variant, reason), []).append(where)
    if PLAIN not in memory:
        print('  nothing to compare with: plain is left out', flush=True)
        return []
    cases = [case for case in cases if case.variant in memory]
    calls = {case.variant: PREPARE[case.part](case) for case in cases}
    times = alternate(calls, args.rounds, args.device, args.iterations)
    records = make_records(cases, times, memory)
    for record in records:
        print(progress(record), flush=True)
    return records


def groups(args: argparse.Namespace) -> list[list[Case]]:
    """Groups of cases that run in turn: the variants of one part, arch, image size and mode."""
    found = []
    for part in args.parts:
        variants = (PLAIN, *args.backends, *((PRR,) if part == 'op' else ()))
        # The model on a GPU runs under autocast.
        dtype = args.dtype if part == 'op' or args.device == 'cpu' else torch.bfloat16
        for arch in args.arch:
            for size, batch_size in zip(args.sizes, args.batch_sizes, strict=True):
                settings = (arch, size, batch_size, args.device, dtype)
                found += [[Case(part, v, mode, *settings) for v in variants] for mode in MODES]
    return found


def header(args: argparse.Namespace) -> str:
    """State command, device, versions and method of the measurement."""
    versions = dict(torch=torch.__version__, timm=timm.__version__)
    if args.device == 'cuda' and importlib.util.find_spec('triton') is not None:
        versions['triton'] = importlib.metadata.version('triton')
    q = torch.empty(1, 1, 1, 64, device=args.device, dtype=args.dtype)
    dtype = str(args.dtype).removeprefix('torch.')
    precision = (
        f'op in {dtype}, plain is FlashAttention; model in float32 under bfloat16 autocast'
        if args.device == 'cuda'
        else dtype
    )
    return (
        f'{provenance("attention.py", args.command, args.device, **versions)}, {precision}. '
        f'Median of {args.rounds} rounds, ratios are medians of the ratio within a round. '
        f'"/ plain": above 1, the variant takes more; "naive ... / it": above 1, naive takes more. '
        f'Training: forward, loss, backward, AdamW; of the operator forward and backward. '
        f'Memory: {MEMORY[args.device]}, weights and inputs included. '
        f'The default backend here is {choose_backend(q)!r}.\n'
    )


def report(records: list[dict], args: argparse.Namespace) -> str:
    """Write the table and all numbers; return the text."""
    parts = [
        f'## {TITLES[part]}\n\n{table([r for r in records if r["part"] == part])}'
        for part in args.parts
    ]
    num_groups = len(groups(args))
    reasons = []
    for (variant, reason), where in args.left_out.items():
        places = 'everywhere' if len(where) == num_groups else '; '.join(where)
        reasons.append(f'- {variant} ({places}): {reason}.')
    if reasons:
        parts.append('Left out:\n\n' + '\n'.join(reasons) + '\n')
    text = '\n'.join([header(args), *parts])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    left_out = [
        dict(variant=variant, reason=reason, where=where)
        for (variant, reason), where in args.left_out.items()
    ]
    content = dict(header=header(args), left_out=left_out, records=records)
    args.out.with_suffix('.json').write_text(json.dumps(content, indent=2) + '\n')
    return text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', choices=PARTS, help='one part; both by default')
    parser.add_argument('--backends', nargs='+', choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument(
        '--arch',
        nargs='+',
        choices=LocAtViT.ARCHS,
        help='tiny by default, base on a GPU; op takes its number of heads',
    )
    parser.add_argument(
        '--sizes', nargs='+', type=int, help='pixels per side of the image; 224 512 1024 by default'
    )
    parser.add_argument(
        '--batch-sizes',
        nargs='+',
        type=int,
        help='images per batch, one number for each size; by default 8 1 1, on a GPU 64 16 4',
    )
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        help='dtype of op on a GPU, by default bfloat16; on the CPU it is float32',
    )
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='number, on the CPU'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/attention.md'),
        metavar='FILE.md',
        help='file of the table; .json and .png are written to the same folder',
    )
    parser.add_argument(
        '--smoke',
        action='store_true',
        help='only check that it runs, on images of 32 and 64 pixels; the numbers mean nothing',
    )
    args = parser.parse_args(argv)
    for name in ('rounds', 'threads'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be positive, got {getattr(args, name)}')
    if args.smoke:
        args.rounds = 1
    args.iterations = 1 if args.smoke else None
    args.sizes = args.sizes or ([32, 64] if args.smoke else [224, 512, 1024])
    for size in args.sizes:
        if size < 2 * PATCH or size % PATCH:
            parser.error(f'--sizes must be multiples of {PATCH} from {2 * PATCH} on, got {size}')
    if args.batch_sizes is None:
        limits = ((math.inf, 1),) if args.smoke else BATCH_SIZES[device]
        args.batch_sizes = [next(n for most, n in limits if size <= most) for size in args.sizes]
    if len(args.batch_sizes) != len(args.sizes) or min(args.batch_sizes) < 1:
        parser.error(
            f'--batch-sizes takes a positive number for each of {len(args.sizes)} sizes, '
            f'got {args.batch_sizes}'
        )
    if args.dtype and device == 'cpu':
        parser.error(f'--dtype is for GPUs, the CPU computes in float32: got {args.dtype}')
    if args.out.suffix != '.md':
        parser.error(f'--out names a file .md, got {args.out}')
    args.dtype = DTYPES[args.dtype or 'bfloat16'] if device == 'cuda' else torch.float32
    args.arch = args.arch or ['base' if device == 'cuda' else 'tiny']
    args.parts = [args.only] if args.only else list(PARTS)
    args.command = sys.argv[1:] if argv is None else argv
    args.device = device
    args.left_out = {}
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    print(f'{device_name(args.device)}: {", ".join(args.parts)}', flush=True)
    records: list[dict] = []
    todo = groups(args)
    for index, cases in enumerate(todo, 1):
        case = cases[0]
        print(
            f'[{index}/{len(todo)}] {case.part}, {case.arch}, {case.size}² ({case.num_tokens:,} '
            f'tokens), batch {case.batch_size}, {case.mode}',
            flush=True,
        )
        records += measure_group(cases, args)
        text = report(records, args)  # after each group, in case of an interruption
    picture = args.out.with_suffix('.png')
    print(f'\n{text}\nTable: {args.out}\nNumbers: {args.out.with_suffix(".json")}')
    drawn = [r for r in records if (r['part'], r['arch']) == (args.parts[0], args.arch[0])]
    title = draw(drawn, device_name(args.device), picture)
    print(f'Picture: {picture} ({title})')


if __name__ == '__main__':
    main()
