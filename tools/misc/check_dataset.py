"""Check every image and annotation of a config's data sets before training.

Files are read as the config's own pipeline reads them, for mmpretrain and mmseg. The report lists
problems, with the names of the files: files that are missing, unreadable or truncated; masks whose
size differs from their image or that have more than 8 bits; labels and classes out of range. It
also lists notes, which leave the exit status 0: images that decode with a warning of the JPEG
library (about unexpected bytes), masks without a label, classes without a sample, images in more
than one data set.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from locat_mm.cli.arguments import add_cfg_options
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.datasets import Report, check_sources, check_zero_label, leaves

SPLITS = ('train', 'val', 'test')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of mmpretrain or mmseg')
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=SPLITS)
    parser.add_argument(
        '--num-workers', type=int, default=os.cpu_count(), help='number of processes'
    )
    parser.add_argument('--out', type=Path, help='JSON file for a report with all names')
    add_cfg_options(parser)
    return parser.parse_args(argv)


def build(cfg: Config, split: str) -> list:
    """Build the data sets of a split.

    Raises:
        FileNotFoundError, ValueError, AssertionError, RuntimeError: from the data set's class.
    """
    loader = f'{split}_dataloader'
    dataset_cfg = cfg[loader].dataset
    scope = cfg.get('default_scope', 'mmengine')
    if 'data_prefix' in dataset_cfg:
        check_sources(loader, dataset_cfg, scope)
    check_zero_label(loader, dataset_cfg, scope)
    return list(leaves(DATASETS.build(dataset_cfg)))


@reports_errors
def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    report, done = Report(), []
    for split in args.splits:
        dataset_cfg = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        if not dataset_cfg:
            continue
        if dataset_cfg in done:
            print(f'{split}: the same data set as above', file=sys.stderr)
            continue
        done.append(dataset_cfg)
        try:
            datasets = build(cfg, split)
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            report.problems['data set'].append(f'{split}: {error}')
            continue
        for number, dataset in enumerate(datasets):
            name = split if len(datasets) == 1 else f'{split}[{number}]'
            report.check(name, dataset, args.num_workers)
    report.show()
    if args.out:
        content = dict(problems=report.problems, notes=report.notes, splits=report.splits)
        args.out.write_text(json.dumps(content, indent=1))
    return bool(report.problems)


if __name__ == '__main__':
    sys.exit(main())
