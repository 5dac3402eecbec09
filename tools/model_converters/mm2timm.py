"""Convert a checkpoint of an OpenMMLab classifier or segmentor to the key names of timm.

The authors use the same names. Only the names change. Of a segmentor only the backbone is written.
"""

import argparse

from locat_mm.checkpoint import (
    check_target,
    read_state_dict,
    to_official,
    trust_checkpoints,
    write_state_dict,
)
from locat_mm.cli.arguments import add_trust_checkpoint
from locat_mm.cli.reporting import reports_errors


@reports_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of OpenMMLab, e.g. epoch_300.pth')
    parser.add_argument('dst', help='file to write: .safetensors, .pth or .pt')
    parser.add_argument('--force', action='store_true', help='overwrite an existing file')
    add_trust_checkpoint(parser)
    args = parser.parse_args(argv)
    trust_checkpoints(args.trust_checkpoint)
    check_target(args.dst, args.force)
    state, left_out = to_official(read_state_dict(args.src))
    write_state_dict(state, args.dst, args.force)
    print(f'{args.dst}: {len(state)} tensors')
    if left_out:
        print(f'Segmentor: the backbone alone, without {len(left_out)} other tensors.')


if __name__ == '__main__':
    main()
