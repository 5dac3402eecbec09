"""Measure the k-NN accuracy of a model's frozen features, as DINO does.

The config is any classification or self-supervised config of mmpretrain. The training images, in
the test pipeline, are the bank; the test images are the queries. If test_cfg or val_cfg of the
config is a k-NN loop, its settings are kept. With --features-in no model is run.
"""

import argparse
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import dump
from safetensors.torch import load_file

from locat_mm.cli.arguments import (
    add_cfg_options,
    add_launcher,
    add_trust_checkpoint,
    set_local_rank,
)
from locat_mm.cli.feature_tests import use_knn_loop
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.engine import build_runner
from locat_mm.evaluation import knn_predict

DEFAULTS: dict[str, Any] = dict(k=[10, 20, 100, 200], temperature=0.07)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument(
        '--k', type=int, nargs='+', help='numbers of neighbours; by default 10 20 100 200'
    )
    parser.add_argument(
        '--temperature', type=float, help='temperature of the votes; by default 0.07'
    )
    parser.add_argument(
        '--features',
        choices=['cls', 'avg', 'neck'],
        help='class token (default), mean patch, or output of the neck (with PRR its class token)',
    )
    parser.add_argument(
        '--backbone', help="dotted name of the backbone in the model; by default 'backbone'"
    )
    parser.add_argument('--dtype', choices=['float32', 'float16'], help='dtype of the bank')
    parser.add_argument('--features-out', metavar='FILE', help='write the features (.safetensors)')
    parser.add_argument('--features-in', metavar='FILE', help='features that --features-out wrote')
    parser.add_argument('--work-dir', help='folder of logs and metrics')
    parser.add_argument('--out', metavar='FILE.json', help='also write the metrics to this file')
    add_trust_checkpoint(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    add_cfg_options(parser)
    add_launcher(parser)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith('.json'):
        parser.error(f'--out writes JSON, so its name must end in .json, got {args.out}')
    if args.features_in is None and (args.config is None or args.checkpoint is None):
        parser.error('a config and a checkpoint are needed, or --features-in')
    if args.features_in is not None:
        others = ('config', 'features', 'backbone', 'dtype', 'features_out', 'work_dir')
        given = [name for name in others if getattr(args, name) is not None]
        given += [
            name for name in ('amp', 'cfg_options', 'trust_checkpoint') if getattr(args, name)
        ]
        if given or args.launcher != 'none':
            parser.error(f'--features-in runs no model, so it takes no {", ".join(given)}')
    set_local_rank(args)
    return args


def set_loop(cfg: Config, args: argparse.Namespace) -> None:
    """Replace the config's test by a k-NN evaluation with the command line's settings."""
    given = ('k', 'temperature', 'features', 'backbone', 'dtype', 'features_out')
    loop = {name: getattr(args, name) for name in given if getattr(args, name) is not None}
    use_knn_loop(cfg, {**loop, 'fp16': True} if args.amp else loop)


def evaluate_file(args: argparse.Namespace) -> dict[str, float]:
    """Compute accuracies from the features in a file.

    Raises:
        ValueError: if the file lacks a tensor, or k is larger than the bank.
    """
    content = load_file(args.features_in)
    parts = ('queries', 'bank', 'bank_labels', 'query_labels')
    missing = [name for name in parts if name not in content]
    if missing:
        raise ValueError(f'{args.features_in} is no file of --features-out: no {missing}')
    queries, bank, labels, targets = (content[name] for name in parts)
    k = args.k or DEFAULTS['k']
    temperature = args.temperature or DEFAULTS['temperature']
    found = knn_predict(queries, bank, labels, k, temperature, top=1)
    hits = {f'knn/top1_k{n}': classes[:, 0] == targets for n, classes in found.items()}
    return {key: 100 * float(hit.double().mean()) for key, hit in hits.items()}


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.features_in is not None:
        metrics = evaluate_file(args)
        print('  '.join(f'{key}: {value:.4f}' for key, value in metrics.items()))
    else:
        cfg = load_config(args.config, args.cfg_options, args.work_dir)
        cfg.launcher, cfg.load_from, cfg.resume = args.launcher, args.checkpoint, False
        set_loop(cfg, args)
        with torch.no_grad():
            metrics = build_runner(cfg, args.checkpoint, args.trust_checkpoint).test()
    if args.out and is_main_process():
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
