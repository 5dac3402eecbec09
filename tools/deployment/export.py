"""Export a segmentor, a classifier or a backbone to ONNX or torch.export, and check the file.

The file takes images of any batch size and, unless --static, of any height and width that are
multiples of the patch. It is compared with PyTorch on random images, at three sizes and two batch
sizes, before it is given its name. See docs/export.md.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, init_default_scope

from locat_mm.analysis.complexity import build_model, input_size
from locat_mm.checkpoint import check_fit, read_state_dict, trust_checkpoints
from locat_mm.cli.arguments import add_cfg_options, add_trust_checkpoint
from locat_mm.cli.reporting import reports_errors
from locat_mm.config import load_config
from locat_mm.deployment import (
    OPSET,
    SUFFIXES,
    ImageNetwork,
    check_output_file,
    compare,
    describe,
    export,
    load,
    other_sizes,
    require_onnx,
    size_multiple,
    trace,
)

#: Largest share of pixels whose class may differ (--output argmax): ties of rounded logits.
MAX_OTHER_PIXELS = 1e-3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of mmpretrain or mmseg')
    parser.add_argument('checkpoint', help='checkpoint file of the whole model')
    parser.add_argument('--format', choices=list(SUFFIXES), required=True, help='of the file')
    parser.add_argument('--out', required=True, help='file to write: .onnx, or .pt2 for torch')
    parser.add_argument(
        '--part', choices=['model', 'backbone'], default='model', help='what to export'
    )
    parser.add_argument(
        '--output',
        choices=['logits', 'argmax', 'scores'],
        help='segmentors: logits (default) or argmax, both of the size of the image; classifiers: '
        'logits (default) or scores',
    )
    parser.add_argument(
        '--with-normalization',
        action='store_true',
        help='the file takes pixels in 0..255; without it, it takes normalized ones, and names '
        'mean and std in its metadata',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels of the example image; by default the config's test size",
    )
    parser.add_argument(
        '--static', action='store_true', help='fix height and width to --size (Swin needs it)'
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-4,
        help='largest difference from PyTorch, times the largest output if that is above 1',
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=5,
        help='timed runs per case; fewer if they take more than five seconds',
    )
    parser.add_argument('--force', action='store_true', help='overwrite an existing file')
    add_trust_checkpoint(parser)
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if args.static and not args.size:
        parser.error('--static needs --size HEIGHT WIDTH')
    if args.size and min(args.size) < 1:
        parser.error(f'--size must be positive, got {args.size[0]} {args.size[1]}')
    if args.repeats < 1:
        parser.error(f'--repeats must be positive, got {args.repeats}')
    if args.part == 'backbone' and args.output:
        parser.error('--output is for whole models: a backbone gives its features')
    return args


def load_model(cfg: Config, checkpoint: str) -> torch.nn.Module:
    """The model with its weights, in eval mode, on the CPU.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if the config has no model, or the checkpoint is of another one.
    """
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model: give a complete config, no part of one')
    state = read_state_dict(checkpoint)
    model = build_model(cfg)
    model.load_state_dict(check_fit(model, state, checkpoint).state)
    return revert_sync_batchnorm(model).eval()


def class_names(cfg: Config) -> list[str] | None:
    """Names of the classes, from the config or its data set's class, if either states them."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    metainfo = dataset.get('metainfo') or {}
    if 'type' in dataset and 'classes' not in metainfo:
        metainfo = getattr(DATASETS.get(dataset['type']), 'METAINFO', {})
    names = metainfo.get('classes')
    return None if names is None else list(names)


def example_size(cfg: Config, network: ImageNetwork, args: argparse.Namespace) -> tuple[int, int]:
    """``--size``, or the config's, rounded up to the patch."""
    if args.size:
        return args.size[0], args.size[1]
    step = size_multiple(network)
    rows, columns = (-(-side // step) * step for side in input_size(cfg))
    return max(rows, 2 * step), max(columns, 2 * step)


def check_file(
    network: ImageNetwork, file: Path, size: tuple[int, int], args: argparse.Namespace
) -> None:
    """Compare the file with PyTorch, printing a line per case.

    Raises:
        ValueError: if a difference is above the tolerance.
    """
    run_file = load(file, args.format)
    runner = 'onnxruntime' if args.format == 'onnx' else 'the file'
    is_map = network.output == 'argmax'
    worst = []
    for height, width in [size] if args.static else other_sizes(network, size):
        for batch in (1, 3):
            case = compare(network, run_file, (batch, 3, height, width), args.repeats)
            limit = MAX_OTHER_PIXELS if is_map else args.tolerance * case.scale
            what = 'share of other pixels' if is_map else 'largest difference'
            print(
                f'batch {batch}, {height}×{width}: {what} {case.difference:.1e} (limit '
                f'{limit:.0e}); PyTorch {case.torch_seconds * 1e3:.1f} ms, {runner} '
                f'{case.file_seconds * 1e3:.1f} ms',
                flush=True,
            )
            if not case.difference <= limit:  # NaN too
                worst.append(f'{case.difference:.1e} at batch {batch}, {height}×{width}')
    if worst:
        raise ValueError(f'the file differs from PyTorch: {"; ".join(worst)}. Nothing is written')


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    out = check_output_file(args.out, args.format, args.force)
    if args.format == 'onnx':
        require_onnx()
    trust_checkpoints(args.trust_checkpoint)
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = load_model(cfg, args.checkpoint)
    network = ImageNetwork(model, args.part, args.output, args.with_normalization)
    size = example_size(cfg, network, args)
    metadata = describe(network, model, class_names(cfg), size if args.static else None)
    metadata['config'] = Path(args.config).name

    print(f'Tracing {type(model).__name__} at {size[0]}×{size[1]} ...', flush=True)
    program = trace(network, size, args.static)
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        names = network.output_names(network(torch.zeros(1, 3, *size)))
    # Written and checked beside the file, under its name: a second file for weights carries it.
    with tempfile.TemporaryDirectory(prefix='.export-', dir=out.parent) as folder:
        beside = Path(folder) / out.name
        export(program, args.format, beside, names, metadata)
        check_file(network, beside, size, args)
        files = sorted(Path(folder).iterdir(), key=lambda file: file == beside)
        megabytes = sum(file.stat().st_size for file in files) / 2**20
        for file in files:
            os.replace(file, out.with_name(file.name))

    kind = f'ONNX, opset {OPSET}' if args.format == 'onnx' else f'torch.export, {torch.__version__}'
    print(f'{out}: {kind}, {megabytes:.1f} MiB, outputs: {", ".join(names)}')
    step = json.loads(metadata['size_multiple'])
    sides = f'{size[0]}×{size[1]}' if step is None else f'sides that are multiples of {step}'
    print(f'Input "image": {metadata["layout"]}, {sides} pixels, {metadata["channel_order"]}')
    print(f'Values: {metadata["input_values"]}', end='')
    print(f'; mean {metadata["mean"]}, std {metadata["std"]}' if metadata['mean'] != 'null' else '')


if __name__ == '__main__':
    main()
