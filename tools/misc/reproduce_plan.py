"""The trainings behind rows of the paper's tables, as commands of this repository's tools."""

import argparse
import functools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from paper import PaperRow

from locat_mm.cli.arguments import add_cfg_options
from locat_mm.cli.running import tool_command
from locat_mm.config import load_config
from locat_mm.datasets import leaves

__all__ = ['METRICS', 'Settings', 'Step', 'Training', 'load', 'make_plan', 'missing_folders']

ROOT = Path(__file__).resolve().parents[2]
#: task -> metric in a summary of results, and in the file that tools/test.py writes
METRICS = {
    'imagenet': ('top1', 'accuracy/top1'),
    'ade20k': ('miou', 'mIoU'),
    'pcontext': ('pcontext', 'mIoU'),
    'cocostuff': ('cocostuff', 'mIoU'),
}


@dataclass(frozen=True)
class Settings:
    """What all trainings of a plan share.

    Attributes:
        work_dir: folder of all runs.
        gpus: number of processes of a training.
        decode: tasks that the frozen backbones are decoded on.
        pretrain_options, decode_options: ``--cfg-options`` of the two kinds of configs.
    """

    work_dir: Path
    gpus: int
    decode: tuple[str, ...] = ('ade20k',)
    pretrain_options: tuple[str, ...] = ()
    decode_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        label: for messages.
        command: to run.
        log: the file of its output.
        result: the file that exists once it is done.
    """

    label: str
    command: list[str]
    log: Path
    result: Path

    @property
    def is_done(self) -> bool:
        return self.result.exists()


@dataclass(frozen=True)
class Training:
    """One training and the test of its last checkpoint.

    Attributes:
        stem: of the config, such as ``'vit/vit_tiny'``.
        task: last part of the config's name.
        seed: ``randomness.seed``.
        settings: of the plan.
        start: the checkpoint of the frozen backbone; None for pretraining.
    """

    stem: str
    task: str
    seed: int
    settings: Settings
    start: Path | None = None

    @property
    def name(self) -> str:
        """Of the config."""
        return f'{Path(self.stem).name}_{self.task}'

    @property
    def config(self) -> Path:
        return Path(os.path.relpath(ROOT / 'configs' / f'{self.stem}_{self.task}.py'))

    @property
    def folder(self) -> Path:
        return self.settings.work_dir / Path(self.stem).name / f'seed{self.seed}' / self.task

    @property
    def chosen(self) -> tuple[str, ...]:
        """The user's ``--cfg-options``."""
        both = self.settings
        return both.pretrain_options if self.start is None else both.decode_options

    @property
    def options(self) -> tuple[str, ...]:
        """The user's ``--cfg-options`` after the batch size of a GPU.

        Raises:
            ValueError: if the GPUs cannot share the recipe's batch.
        """
        if any(option.startswith('train_dataloader.batch_size=') for option in self.chosen):
            return self.chosen
        cfg, gpus = load(self.config, self.chosen), self.settings.gpus
        size, rest = divmod(cfg.auto_scale_lr.base_batch_size, gpus)
        if rest:
            raise ValueError(
                f'{gpus} GPUs cannot share {self.config}, a batch of '
                f'{cfg.auto_scale_lr.base_batch_size} images: choose another --gpus, or set '
                'train_dataloader.batch_size and the learning rate by --pretrain-options and '
                '--decode-options'
            )
        return (f'train_dataloader.batch_size={size}', *self.chosen)

    @property
    def cfg(self) -> Config:
        """The config with all options but the seed and the start."""
        return load(self.config, self.options)

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        length = self.cfg.train_cfg
        epochs = length.get('max_epochs')
        return self.folder / (f'epoch_{epochs}.pth' if epochs else f'iter_{length.max_iters}.pth')

    @property
    def metrics(self) -> Path:
        return self.folder / 'metrics.json'

    @property
    def log(self) -> Path:
        return self.folder / 'train.txt'

    @property
    def begun(self) -> Path:
        """The options that the folder was begun with."""
        return self.folder / 'options.json'

    @property
    def is_done(self) -> bool:
        return all(step.is_done for step in self.steps())

    def steps(self) -> list[Step]:
        """The training and its test."""
        label, tools = f'{self.name}, seed {self.seed}', Path(os.path.relpath(ROOT / 'tools'))
        options = [f'randomness.seed={self.seed}', *self.options]
        if self.start is not None:
            options.append(f'model.backbone.init_cfg.checkpoint={self.start}')
        train = [str(self.config), '--work-dir', str(self.folder), '--resume', '--cfg-options']
        test = [str(self.config), str(self.checkpoint), '--work-dir', str(self.folder / 'test')]
        test += ['--out', str(self.metrics), '--out-item', 'metrics']
        if self.chosen:
            test += ['--cfg-options', *self.chosen]
        gpus = self.settings.gpus
        return [
            Step(
                f'{label}, training',
                tool_command(tools, 'train', [*train, *options], gpus),
                self.log,
                self.checkpoint,
            ),
            Step(
                f'{label}, test',
                tool_command(tools, 'test', test, gpus),
                self.folder / 'test.txt',
                self.metrics,
            ),
        ]

    def check_options(self) -> None:
        """
        Raises:
            ValueError: if the folder was begun with other options.
        """
        begun = json.loads(self.begun.read_text()) if self.begun.exists() else [*self.chosen]
        if begun != [*self.chosen]:
            raise ValueError(
                f'{self.folder} was begun with the options {begun}, not {[*self.chosen]}: give the '
                'same ones, or another --work-dir'
            )

    def keep_options(self) -> None:
        """Write down what :meth:`check_options` compares."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.begun.write_text(json.dumps(self.chosen) + '\n')


def make_plan(rows: Iterable[PaperRow], seeds: Iterable[int], settings: Settings) -> list[Training]:
    """The trainings of rows, in order; a model that two tables share is trained once.

    The loop over seeds is the outer one: after an early stop, all models of a seed are done.

    Args:
        rows: of the paper's tables.
        seeds: of the trainings.
        settings: of all of them.
    """
    plan = []
    for seed in seeds:
        for stem in dict.fromkeys(row.stem for row in rows):
            first = Training(stem, 'imagenet', seed, settings)
            plan.append(first)
            plan += [Training(stem, t, seed, settings, first.checkpoint) for t in settings.decode]
    return plan


def missing_folders(plan: Iterable[Training]) -> dict[str, str]:
    """The folders of data that the trainings need and that do not exist.

    Returns:
        folder -> where the data come from.
    """
    missing = {}
    for cfg in {id(training.cfg): training.cfg for training in plan}.values():
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            for dataset in leaves(cfg[loader].dataset):
                prefix = dataset.get('data_prefix') or dataset.get('split')
                parts = prefix.values() if isinstance(prefix, dict) else [prefix]
                for folder in (Path(dataset.data_root, part) for part in parts):
                    if not folder.is_dir():
                        missing[str(folder)] = cfg.dataset_source
    return missing


def _parsed(options: Sequence[str]) -> dict:
    """``--cfg-options`` as the tools read them."""
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    return parser.parse_args(['--cfg-options', *options]).cfg_options if options else {}


@functools.cache
def load(config: Path, options: tuple[str, ...]) -> Config:
    """A config with ``--cfg-options``. Each is read once."""
    return load_config(str(config), _parsed(options))
