"""Try constant Gaussians in a frozen backbone: variance × alpha × layers, without any training.

CONFIG and CHECKPOINT are those of tools/analysis_tools/in_context.py: every setting is tested by
in-context segmentation. --classifier or --knn adds the top-1 of the class token, which falls as
patches turn local. A backbone with a trained GAug is swept over --alpha-scale. The best setting is
chosen on the test images of CONFIG: confirm it on others. An interrupted sweep continues where it
stopped; settings that are done are not done again.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from locat_mm.analysis.heat_map import HeatMap, draw_heat_maps
from locat_mm.cli.arguments import add_cfg_options, add_trust_checkpoint
from locat_mm.cli.feature_tests import set_in_context_weights, use_knn_loop
from locat_mm.cli.locality_sweep import (
    Cell,
    Evaluation,
    Sweep,
    best_of,
    config_line,
    plan,
    source_of,
)
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config

TITLES = dict(mIoU='in-context mIoU (%)', top1='top-1 (%)', knn='k-NN (%)')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of an InContextSegmentor')
    parser.add_argument(
        'checkpoint', nargs='?', help='weights of the backbone; by default those of init_cfg'
    )
    parser.add_argument('--prefix', help="prefix of the backbone's keys in CHECKPOINT")
    parser.add_argument(
        '--variance', type=float, nargs='+', default=[1, 2, 4, 8], help='squared patches'
    )
    parser.add_argument('--alpha', type=float, nargs='+', default=[2, 4, 6, 10], help='logits')
    parser.add_argument(
        '--layers',
        nargs='+',
        default=['all', 'last'],
        help='attention layers: all, first, last, last3, 1:4 or 0,2 (default: all last)',
    )
    parser.add_argument('--units', choices=['patches', 'image'], default='patches')
    parser.add_argument(
        '--alpha-scale', type=float, nargs='+', help='factors of the strength of a trained GAug'
    )
    parser.add_argument('--classifier', help='config of the classifier of CHECKPOINT: its top-1')
    parser.add_argument('--knn', help='config of the classifier of CHECKPOINT: its k-NN accuracy')
    parser.add_argument('--max-patches', type=int, help='upper limit of patches in the bank')
    parser.add_argument('--out', help='folder of sweep.json and sweep.png; by default the work dir')
    parser.add_argument('--work-dir', help='folder of logs')
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    for name in ('prefix', 'classifier', 'knn'):
        if getattr(args, name) and not args.checkpoint:
            parser.error(f'--{name} needs CHECKPOINT')
    return args


def configs_of(args: argparse.Namespace) -> dict:
    """Metric -> config of its test."""
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    set_in_context_weights(cfg, args.checkpoint, args.prefix)
    if args.max_patches is not None:
        cfg.model.max_patches = args.max_patches
    configs = dict(mIoU=cfg)
    for name, path in (('top1', args.classifier), ('knn', args.knn)):
        if path:
            configs[name] = load_config(path, work_dir=str(Path(cfg.work_dir) / name))
    if args.knn:
        use_knn_loop(configs['knn'])
    return configs


def show(cells: list[Cell], results: dict[Cell, dict[str, float]], metrics: list[str]) -> None:
    """Print the table, one row per setting."""
    table = Table()
    for header in ('layers', 'variance', 'alpha', *(TITLES[name] for name in metrics)):
        table.add_column(header, justify='right')
    for cell in cells:
        if cell.is_plain:
            setting = ['as it is', '', '']
        elif cell.alpha_scale is not None:
            setting = ['all', '', f'× {cell.alpha_scale:g}']
        else:
            layers = ' '.join(map(str, cell.layers or ()))
            setting = [layers, f'{cell.variance:g}', f'{cell.alpha:g}']
        table.add_row(*setting, *(f'{results[cell][name]:.2f}' for name in metrics))
    Console(width=100).print(table)


def draw(
    cells: list[Cell], results: dict[Cell, dict[str, float]], metrics: list[str], out: Path
) -> Path:
    """Draw a heat map per set of layers and metric."""
    tried = [cell for cell in cells if not cell.is_plain]
    plain = results[Cell()]
    panels = []
    for name in metrics:
        row = []
        for layers in dict.fromkeys(cell.layers for cell in tried):
            own = [cell for cell in tried if cell.layers == layers]
            rows = list(dict.fromkeys(cell.variance or 1.0 for cell in own))
            columns = list(dict.fromkeys(cell.alpha or cell.alpha_scale or 0.0 for cell in own))
            values = np.full((len(rows), len(columns)), np.nan)
            for cell in own:
                y = rows.index(cell.variance or 1.0)
                x = columns.index(cell.alpha or cell.alpha_scale or 0.0)
                values[y, x] = results[cell][name]
            where = 'GAug' if layers is None else f'layers {" ".join(map(str, layers))}'
            row.append(HeatMap(f'{where} (as it is: {plain[name]:.1f})', rows, columns, values))
        panels.append(row)
    scaled = tried[0].alpha_scale is not None
    labels = ('', 'factor of the strength') if scaled else ('variance (patches²)', 'alpha (logits)')
    return draw_heat_maps(panels, out, labels, [TITLES[name] for name in metrics])


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    configs = configs_of(args)
    folder = Path(args.out or configs['mIoU'].work_dir)
    sources = {name: source_of(cfg, args.checkpoint) for name, cfg in configs.items()}
    sweep = Sweep(folder / 'sweep.json', sources)
    if sweep.outdated:
        print(f'{sweep.path}: config or checkpoint has changed, {sweep.outdated} start anew')
    evaluations = {
        name: Evaluation(cfg, None if name == 'mIoU' else args.checkpoint, args.trust_checkpoint)
        for name, cfg in configs.items()
    }
    backbone = evaluations['mIoU'].model.backbone
    cells = plan(backbone, args.variance, args.alpha, args.layers, args.units, args.alpha_scale)
    sweep.run(cells, evaluations)
    metrics = list(configs)
    show(cells, sweep.results, metrics)
    if len(cells) > 1:
        print(f'Heat map: {draw(cells, sweep.results, metrics, folder / "sweep.png")}')
    best = best_of(sweep.results, cells)
    found, plain = sweep.results[best], sweep.results[Cell()]
    numbers = ', '.join(
        f'{TITLES[name]} {found[name]:.2f} (as it is {plain[name]:.2f})' for name in metrics
    )
    print(f'Best: {numbers}. Results: {sweep.path}\n{config_line(best)}')


if __name__ == '__main__':
    main()
