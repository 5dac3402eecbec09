"""Hours and disk space of trainings: from measured iterations, multiply-accumulates, parameters."""

import functools
import json
import shutil
from pathlib import Path

import torch
from reproduce_plan import Training, load

from locat_mm.analysis.complexity import measure_complexity
from locat_mm.checkpoint import write_beside
from locat_mm.cli.running import run_command, tool_command
from locat_mm.models.building import build_model

__all__ = ['Costs', 'count_parameters', 'disk_space', 'iterations', 'least_hours']

TOOLS = Path(__file__).resolve().parents[1]
#: images of ImageNet-1K's training set
IMAGENET_IMAGES = 1_281_167


class Costs:
    """Measured seconds of an iteration, in ``costs.json`` in the folder of all runs.

    Args:
        work_dir: the folder.
    """

    def __init__(self, work_dir: Path) -> None:
        self.file = work_dir / 'costs.json'
        self.known: dict[str, dict] = {}
        if self.file.exists():
            self.known = json.loads(self.file.read_text())

    def seconds(self, training: Training) -> float | None:
        """Seconds of an iteration; None if it has not been measured with these GPUs and options."""
        cost = self.known.get(training.name, {})
        is_same = cost.get('setting') == _setting(training)
        return cost['seconds'] if is_same else None

    def measure(self, training: Training, count: int) -> None:
        """Train a few iterations with random weights; keep the mean time of the second half.

        Args:
            training: its config, GPUs and options are used. Nothing is written to its folder.
            count: of iterations, at least two.

        Raises:
            SystemExit: if the training fails.
        """
        folder = self.file.parent / 'measured' / training.name
        shutil.rmtree(folder, ignore_errors=True)  # the times of an earlier measurement
        options = [
            *training.options,
            *(f'default_hooks.logger.interval={count}', f'log_processor.window_size={count // 2}'),
            *('default_hooks.checkpoint.interval=-1', 'default_hooks.checkpoint.save_last=False'),
        ]
        if training.start is None:
            images = count * training.cfg.train_dataloader.batch_size * training.settings.gpus
            options.append(f'train_dataloader.dataset.indices={images}')
            options.append('train_cfg.max_epochs=1')
        else:
            options += ['model.backbone.init_cfg=None', f'train_cfg.max_iters={count}']
        args = [str(training.config), '--work-dir', str(folder), '--no-validate']
        args += ['--cfg-options', *options]
        command = tool_command(TOOLS, 'train', args, training.settings.gpus)
        run_command(f'{training.name}, {count} iterations', folder / 'train.txt', command)
        (scalars,) = folder.glob('*/vis_data/scalars.json')
        times = [json.loads(line).get('time') for line in scalars.read_text().splitlines()]
        (seconds,) = (time for time in times if time is not None)
        self.known[training.name] = dict(
            seconds=round(seconds, 4), iterations=count, setting=_setting(training)
        )
        with write_beside(self.file) as beside:
            beside.write_text(json.dumps(self.known, indent=1) + '\n')


def iterations(training: Training) -> int:
    """Of the whole training. An epoch has all images of ImageNet-1K, unless ``indices`` says less.

    Args:
        training: pretraining by epochs, or decoding by iterations.
    """
    cfg = training.cfg
    if training.start is not None:
        return cfg.train_cfg.max_iters
    images = cfg.train_dataloader.dataset.get('indices') or IMAGENET_IMAGES
    return cfg.train_cfg.max_epochs * (images // _images_per_iteration(training))


def least_hours(training: Training, tflops: float) -> float:
    """Hours of the multiply-accumulates alone: a lower bound.

    Three times those of a forward pass in parts that are trained, once in frozen parts.

    Args:
        training: the training.
        tflops: 10^12 operations that a GPU sustains in a second; a multiply-accumulate is two.
    """
    images = iterations(training) * _images_per_iteration(training)
    operations = 2 * _training_macs(training.config, training.chosen) * images
    return operations / (training.settings.gpus * tflops * 1e12) / 3600


def disk_space(training: Training) -> int:
    """Bytes of the checkpoints that are on disk at a time: weights, and AdamW's two averages."""
    parameters, trainable = count_parameters(training.config, training.chosen)
    cfg = training.cfg
    hook = cfg.default_hooks.checkpoint
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    count, kept = -(-length // hook.interval), hook.get('max_keep_ckpts', -1)
    if 0 < kept < count:
        count = kept + 1  # a new file is complete before the oldest one is removed
    return count * 4 * (parameters + 2 * trainable)


def _images_per_iteration(training: Training) -> int:
    return training.cfg.train_dataloader.batch_size * training.settings.gpus


def _setting(training: Training) -> list:
    return [training.settings.gpus, *training.options]


@functools.cache
def count_parameters(config: Path, options: tuple[str, ...]) -> tuple[int, int]:
    """All and trainable parameters of a config's model.

    Args:
        config: its file.
        options: ``--cfg-options``.
    """
    with torch.device('meta'):
        parameters = list(build_model(load(config, options)).parameters())
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return sum(n for n, _ in counts), sum(n for n, is_trained in counts if is_trained)


@functools.cache
def _training_macs(config: Path, options: tuple[str, ...]) -> int:
    """Multiply-accumulates of a training step, for one image."""
    parts = measure_complexity(load(config, options)).parts.values()
    return sum(part.macs * (3 if part.trainable else 1) for part in parts)
