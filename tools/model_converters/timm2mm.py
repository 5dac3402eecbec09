"""Turn weights of timm or of the authors into a checkpoint of an OpenMMLab classifier.

Names alone change. Loading does the same by itself; a converted file is for tools that know
OpenMMLab's names alone.
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
        help='where the norm after average pooling goes: to the neck with PRR, else to the '
        'backbone; by default PRR is taken for granted where there is GAug',
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
