"""Time and memory that a data set of many small files takes, and the check of each file.

Makes the data sets of hard links to a few images and masks in a temporary folder, and measures,
each step in a process of its own: building mmseg's and mmpretrain's data set, looking for missing
files as DataGuardHook does before training, and tools/misc/check_dataset.py on both. ``memory`` is
what the step's main process grows by at its peak. Speeds are those of files in the page cache.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import runpy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.registry import DATASETS, init_default_scope
from tqdm import tqdm

from locat_mm.datasets import missing_files
from tests.support import ROOT, demo_config

#: Different files; a file system allows only so many links to one.
SOURCES = 16


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--files', type=int, default=100_000, help='images in a data set')
    parser.add_argument('--size', type=int, default=96, help='pixels a side')
    parser.add_argument('--num-workers', type=int, default=2, help='of check_dataset.py')
    parser.add_argument('--out', type=Path, help='the log')
    return parser.parse_args(argv)


def measure(folder: Path, files: int, size: int = 96, num_workers: int = 0) -> list[dict]:
    """Make the data sets and measure every step.

    Args:
        folder: for the files.
        files: images in a data set.
        size: height and width of an image.
        num_workers: of the check.

    Returns:
        a row per step: step, files, seconds, files a second, memory in MiB.

    Raises:
        RuntimeError: if a step fails, or the check finds problems.
    """
    make(folder, files, size)
    check = runpy.run_path(str(ROOT / 'tools' / 'misc' / 'check_dataset.py'))['main']

    def checked(task: str, root: str) -> Callable[[], None]:
        dataset = 'train_dataloader.dataset'
        options = [f'{dataset}.data_root={folder / root}']
        if task == 'segment':
            options.append(f'{dataset}.img_suffix=.jpg')
        config = str(demo_config(f'vit_{task}'))
        argv = [config, '--splits', 'train', '--num-workers', str(num_workers)]

        def run() -> None:
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
                if check([*argv, '--cfg-options', *options]):
                    raise RuntimeError(shown.getvalue())

        return run

    steps: dict[str, Callable[[], Any]] = {
        'mmseg: build': lambda: scenes(folder),
        'mmseg: build, look for files': lambda: missing_files(scenes(folder)),
        'mmpretrain: build': lambda: objects(folder),
        'check_dataset.py, images and masks': checked('segment', 'scenes'),
        'check_dataset.py, images and labels': checked('classify', 'objects'),
    }
    return [
        dict(step=step, files=files, **in_own_process(run))
        for step, run in tqdm(steps.items(), desc='steps')
    ]


def make(folder: Path, files: int, size: int) -> None:
    rng = np.random.default_rng(0)
    sources = folder / 'sources'
    sources.mkdir(parents=True)
    for i in range(SOURCES):
        image = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (size, size))
        cv2.imwrite(str(sources / f'{i}.jpg'), image)
        cv2.imwrite(str(sources / f'{i}.png'), (image[..., 0] // 24).astype(np.uint8))
    images, masks = (folder / 'scenes' / kind / 'training' for kind in ('images', 'annotations'))
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for i in range(10):
        (folder / 'objects' / 'train' / str(i)).mkdir(parents=True)
    for i in tqdm(range(files), desc='files'):
        os.link(sources / f'{i % SOURCES}.jpg', images / f'{i:07}.jpg')
        os.link(sources / f'{i % SOURCES}.png', masks / f'{i:07}.png')
        os.link(
            sources / f'{i % SOURCES}.jpg', folder / 'objects' / 'train' / f'{i % 10}' / f'{i}.jpg'
        )


def scenes(folder: Path) -> Any:
    init_default_scope('mmseg')
    prefix = dict(img_path='images/training', seg_map_path='annotations/training')
    return build(type='BaseSegDataset', data_root=str(folder / 'scenes'), data_prefix=prefix)


def objects(folder: Path) -> Any:
    init_default_scope('mmpretrain')
    return build(type='CustomDataset', data_root=str(folder / 'objects'), data_prefix='train')


def build(**cfg: Any) -> Any:
    return DATASETS.build(dict(cfg, pipeline=[]))


def in_own_process(run: Callable[[], Any]) -> dict[str, float]:
    """Time and growth of memory of a function in a fork of this process."""
    receiving, sending = multiprocessing.get_context('fork').Pipe(duplex=False)

    def target() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sending.send(dict(seconds=seconds, memory=(after - before) / 1024))

    process: Any = multiprocessing.get_context('fork').Process(target=target)
    process.start()
    sending.close()
    try:
        return receiving.recv()
    except EOFError:
        raise RuntimeError('a step failed; its error is above') from None
    finally:
        process.join()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), args.files, args.size, args.num_workers)
    lines = [
        f'{args.files} images of {args.size}×{args.size} pixels, {args.num_workers} workers, '
        f'{os.cpu_count()} cores',
        '',
        '| step | seconds | files a second | memory (MiB) |',
        '|---|---|---|---|',
    ]
    for row in rows:
        speed = row['files'] / row['seconds']
        lines.append(
            f'| {row["step"]} | {row["seconds"]:.1f} | {speed:.0f} | {row["memory"]:.0f} |'
        )
    print('\n'.join(lines))
    if args.out is not None:
        args.out.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
