"""Convert weights of timm or of the authors to a checkpoint of an OpenMMLab classifier.

Only the names change. Loading in this package does the same; a converted file is for tools that
read only the names of OpenMMLab.
"""

import argparse

from locat_mm.checkpoint import (
    check_target,
    read_state_dict,
    to_openmmlab,
    trust_checkpoints,
    write_state_dict,
)
from locat_mm.cli.arguments import add_trust_checkpoint
from locat_mm.cli.reporting import reports_errors


@reports_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='file, hf-hub:OWNER/NAME or timm:NAME')
    parser.add_argument('dst', help='file to write: .pth, .pt or .safetensors')
    parser.add_argument(
        '--fc-norm',
        choices=['neck', 'backbone'],
        help='part that gets the norm after average pooling: the neck for models with PRR, else '
        'the backbone; by default the neck for models with GAug',
    )
    parser.add_argument('--force', action='store_true', help='overwrite an existing file')
    add_trust_checkpoint(parser)
    args = parser.parse_args(argv)
    trust_checkpoints(args.trust_checkpoint)
    check_target(args.dst, args.force)
    state = read_state_dict(args.src)
    if any(key.startswith('backbone.') for key in state):
        raise ValueError(f"{args.src} already has OpenMMLab's names")
    has_gaug = any('.gaug.' in key for key in state)
    in_neck = has_gaug if args.fc_norm is None else args.fc_norm == 'neck'
    state = to_openmmlab(state, neck_norm=in_neck)
    write_state_dict(state, args.dst, args.force)
    print(f'{args.dst}: {len(state)} tensors')


if __name__ == '__main__':
    main()
