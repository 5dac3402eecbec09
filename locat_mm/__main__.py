"""Print where the installed configs and tools are, or the file of one config."""

import argparse
from pathlib import Path

from .config import config_path


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m locat_mm', description=__doc__)
    parser.add_argument(
        'config',
        nargs='?',
        help='a config, such as locat/locatvit_tiny_ade20k.py or mmseg::_base_/datasets/ade20k.py; '
        'without, the folder that holds configs and tools is printed',
    )
    name = parser.parse_args().config
    print(config_path(name) if name else Path(__file__).parent / '.mim')


if __name__ == '__main__':
    main()
