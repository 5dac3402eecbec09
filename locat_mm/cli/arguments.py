"""Arguments that OpenMMLab's tools share."""

import argparse
import os

from mmengine.config import DictAction

__all__ = ['add_cfg_options', 'add_launcher', 'add_trust_checkpoint', 'set_local_rank']


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings, as key=value; lists as key="[a,b]", without white space',
    )


def add_trust_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='DANGEROUS: execute the code in checkpoints that cannot be read otherwise; only for '
        'files from people you trust',
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """``--launcher``, and the rank that old launchers of torch pass as an argument."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def set_local_rank(args: argparse.Namespace) -> None:
    """Set the rank for mmengine if the launcher has not."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
