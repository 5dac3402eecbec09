"""Measure images per second of a config's model on its test set, for mmpretrain and mmseg.

The method is that of mmseg's own tool: batches of one image; the first few are not timed. The timed
part is the forward pass in mode 'predict', including post-processing. Loading and preprocessing are
not timed, but on a CPU the workers of the loader use the same cores.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from torch.utils.data import DataLoader

from locat_mm.checkpoint import trust_checkpoints
from locat_mm.cli.arguments import add_cfg_options, add_trust_checkpoint
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.models.building import load_model

#: Batches of a run that are not timed.
NUM_WARMUP = 5


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of mmpretrain or mmseg')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file; without it the weights are random'
    )
    parser.add_argument(
        '--work-dir',
        help="folder of fps_TIME.json; by default the config's, or work_dirs/NAME",
    )
    parser.add_argument('--repeat-times', type=int, default=1, help='number of runs')
    parser.add_argument(
        '--iterations',
        type=int,
        default=200,
        help=f'batches per run; the first {NUM_WARMUP} are not timed; a small test set is repeated',
    )
    parser.add_argument(
        '--log-interval', type=int, default=50, help='batches between two log lines'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images per batch')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    for name in ('repeat_times', 'log_interval', 'batch_size'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be positive, got {getattr(args, name)}')
    if args.iterations <= NUM_WARMUP:
        parser.error(f'--iterations must be more than {NUM_WARMUP}, got {args.iterations}')
    args.device = get_device()
    if args.amp and args.device == 'cpu':
        parser.error('--amp needs an accelerator, and this machine has none')
    return args


def prepare_loader(cfg: Config, batch_size: int) -> DataLoader:
    """Build the loader of the test set; an incomplete last batch is dropped.

    Raises:
        FileNotFoundError: if the data set does not exist.
        ValueError: if the config has no test set, or the set has fewer images than a batch.
    """
    if not cfg.get('test_dataloader'):
        raise ValueError(f'{cfg.filename} has no test_dataloader')
    cfg.test_dataloader.update(batch_size=batch_size, drop_last=True)
    try:
        loader = Runner.build_dataloader(cfg.test_dataloader)
    except FileNotFoundError as error:
        source = cfg.get('dataset_source', 'No source is named in the config.')
        raise FileNotFoundError(
            f'test_dataloader: {error} (from {Path.cwd()}). {source}'
        ) from error
    if not len(loader):
        count = len(loader.dataset)
        raise ValueError(f'the test set has {count} images, too few for --batch-size {batch_size}')
    return loader


def measure(model: Any, loader: DataLoader, args: argparse.Namespace) -> float:
    """Measure images per second in one run."""
    seconds, images = 0.0, 0
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for index, batch in enumerate(itertools.islice(batches, args.iterations), 1):
        data = model.data_preprocessor(batch, False)
        synchronize(args.device)
        start = time.perf_counter()
        with torch.no_grad(), autocast(enabled=args.amp):
            model(**data, mode='predict')
        synchronize(args.device)
        elapsed = time.perf_counter() - start
        if index > NUM_WARMUP:
            seconds += elapsed
            images += args.batch_size
            if index % args.log_interval == 0:
                fps = images / seconds
                print(f'Done batch [{index}/{args.iterations}], {fps:.2f} img / s', flush=True)
    return images / seconds


def synchronize(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    trust_checkpoints(args.trust_checkpoint)
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    args.amp = args.amp or bool((cfg.get('test_cfg') or {}).get('fp16'))
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    torch.backends.cudnn.benchmark = False
    model = load_model(cfg, args.checkpoint, args.device)
    loader = prepare_loader(cfg, args.batch_size)

    found: dict = dict(config=args.config, checkpoint=args.checkpoint, unit='img / s')
    rates = []
    for run in range(1, args.repeat_times + 1):
        print(f'Run {run}:', flush=True)
        rates.append(measure(model, loader, args))
        print(f'Overall: {rates[-1]:.2f} img / s\n', flush=True)
        found[f'overall_fps_{run}'] = round(rates[-1], 2)
    found['average_fps'] = round(float(np.mean(rates)), 2)
    found['fps_variance'] = round(float(np.var(rates)), 4)
    device = args.device
    if device == 'cuda':
        device = torch.cuda.get_device_name()
    found |= dict(device=device, threads=torch.get_num_threads(), torch=torch.__version__)
    found |= dict(batch_size=args.batch_size, iterations=args.iterations, amp=args.amp)
    print(f'Average of {args.repeat_times} runs: {found["average_fps"]} img / s')
    print(f'Variance of {args.repeat_times} runs: {found["fps_variance"]}')
    out = Path(cfg.work_dir) / f'fps_{time.strftime("%Y%m%d_%H%M%S")}.json'
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=4) + '\n')
    print(f'Numbers: {out}')


if __name__ == '__main__':
    main()
