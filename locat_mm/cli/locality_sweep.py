"""Tries constant Gaussians in a frozen backbone, on in-context segmentation and classification."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn
from tqdm import tqdm

from ..checkpoint import write_beside
from ..engine import build_runner
from ..helpers import innermost
from ..layers import GAugMixin, GaussianAugment, attach, detach
from ..layers.hosts.search import find_attention

__all__ = ['Cell', 'Evaluation', 'Sweep', 'best_of', 'config_line', 'layers_named', 'plan']

#: metric of the table -> keys of the Runner's metrics, of which the first that it has is taken
METRICS = {
    'mIoU': ('mIoU',),
    'top1': ('accuracy/top1',),
    'knn': ('knn/top1_k20', 'knn/top1_k10', 'knn/top1'),
}


@dataclass(frozen=True)
class Cell:
    """One setting of the sweep. All None: the model as it is.

    Attributes:
        variance, alpha, layers, units: of ``attach(start='fixed')``; layers by number.
        alpha_scale: of a trained GAug.
    """

    variance: float | None = None
    alpha: float | None = None
    layers: tuple[int, ...] | None = None
    units: str | None = None
    alpha_scale: float | None = None

    @property
    def is_plain(self) -> bool:
        return self == Cell()


def layers_named(name: str, count: int) -> tuple[int, ...]:
    """The layers that a word of the command line means.

    Args:
        name: ``all``, ``first``, ``last``, ``first3``, ``last3``, ``1:4`` (without 4) or ``0,2``.
        count: of the model's attention layers.

    Raises:
        ValueError: if it means no layers of the model.
    """
    every = tuple(range(count))
    chosen: tuple[int, ...] = ()
    if name == 'all':
        chosen = every
    elif found := re.fullmatch(r'(first|last)(\d*)', name):
        number = int(found[2] or 1)
        if number <= count:
            chosen = every[:number] if found[1] == 'first' else every[count - number :]
    elif found := re.fullmatch(r'(\d*):(\d*)', name):
        if all(int(limit or 0) <= count for limit in found.groups()):
            chosen = every[slice(*(int(limit) if limit else None for limit in found.groups()))]
    elif re.fullmatch(r'\d+(,\d+)*', name):
        numbers = [int(number) for number in name.split(',')]
        if max(numbers) < count and len(set(numbers)) == len(numbers):
            chosen = tuple(sorted(numbers))
    if not chosen:
        raise ValueError(
            f'{name!r} means none of the {count} attention layers (0 to {count - 1}): give all, '
            'first, last, last3, 1:4 or 0,2'
        )
    return chosen


def plan(
    backbone: nn.Module,
    variances: Sequence[float],
    alphas: Sequence[float],
    layers: Sequence[str],
    units: str,
    alpha_scales: Sequence[float] | None,
) -> list[Cell]:
    """The settings to try, the plain model first.

    Raises:
        ValueError: if the backbone has GAug and no ``alpha_scales`` are given, or the reverse, or
            a name means no layers.
        TypeError: if its attention is not supported.
    """
    has_gaug = any(isinstance(module, GAugMixin) for module in backbone.modules())
    if has_gaug != (alpha_scales is not None):
        raise ValueError(
            f'{type(backbone).__name__} has GAug: its strength is swept by --alpha-scale 0.5 1 2'
            if has_gaug
            else f'{type(backbone).__name__} has no GAug that --alpha-scale could scale'
        )
    if alpha_scales is not None:
        cells = [Cell(alpha_scale=scale) for scale in alpha_scales if scale != 1]
    else:
        count = len(find_attention(backbone))
        sets = dict.fromkeys(layers_named(name, count) for name in layers)
        cells = [
            Cell(float(variance), float(alpha), chosen, units)
            for chosen, variance, alpha in product(sets, variances, alphas)
        ]
    return [Cell(), *dict.fromkeys(cells)]


@contextmanager
def applied(cell: Cell, backbone: nn.Module) -> Iterator[None]:
    """Context in which a backbone has the setting of a cell."""
    if cell.is_plain:
        yield
    elif cell.alpha_scale is not None:
        gaugs = [m for m in backbone.modules() if isinstance(m, GaussianAugment)]
        before = [gaug.alpha_scale for gaug in gaugs]
        for gaug in gaugs:
            gaug.alpha_scale *= cell.alpha_scale
        try:
            yield
        finally:
            for gaug, scale in zip(gaugs, before, strict=True):
                gaug.alpha_scale = scale
    else:
        assert cell.units is not None
        attach(
            backbone,
            start='fixed',
            variance=cell.variance,
            alpha=cell.alpha,
            layers=cell.layers,
            units=cell.units,
        )
        try:
            yield
        finally:
            detach(backbone)


class Evaluation:
    """A test of a config that runs several times, with one Runner and its loaders.

    Args:
        cfg: with weights (``init_cfg``), or with ``checkpoint``.
        checkpoint: of the whole model; None for an in-context config.
        trust_checkpoint: see :func:`locat_mm.engine.build_runner`.

    Raises:
        FileNotFoundError, ValueError: as ``build_runner``.
    """

    def __init__(
        self, cfg: Config, checkpoint: str | None = None, trust_checkpoint: bool = False
    ) -> None:
        cfg.load_from, cfg.resume, cfg.log_level = checkpoint, False, 'WARNING'
        if 'visualizer' in cfg:
            cfg.visualizer.name = Path(cfg.filename).stem  # mmengine keeps one for each name
        self.runner: Runner = build_runner(cfg, checkpoint, trust_checkpoint)
        self.model = cast(Any, innermost(self.runner.model))
        self.loop: Any = self.runner.test_loop  # now, while the default scope is this config's
        self.runner.call_hook('before_run')
        if checkpoint is None:
            self.model.init_weights()  # mmengine does so before training only
        else:
            self.runner.load_or_resume()

    def __call__(self, cell: Cell) -> dict[str, float]:
        """The Runner's metrics with a setting."""
        with applied(cell, self.model.backbone), torch.no_grad():
            return self.loop.run()


class Sweep:
    """The results of a sweep in a JSON file: what is in it is not computed again.

    Args:
        path: the file.
        sources: metric -> everything else that its numbers depend on. A metric whose sources
            have changed since is computed anew.
    """

    def __init__(self, path: Path, sources: dict[str, str]) -> None:
        self.path = path
        self.sources = sources
        self.results: dict[Cell, dict[str, float]] = {}
        #: Metrics in the file that were computed from other sources.
        self.outdated: list[str] = []
        if not path.exists():
            return
        content = json.loads(path.read_text())
        before = content['sources']
        self.outdated = [
            name for name in sources if before.get(name, sources[name]) != sources[name]
        ]
        self.sources = {**before, **sources}  # metrics that this run does not ask for stay
        for entry in content['cells']:
            numbers = {name: entry.pop(name) for name in METRICS if name in entry}
            layers = entry.pop('layers')
            cell = Cell(**entry, layers=None if layers is None else tuple(layers))
            self.results[cell] = {n: x for n, x in numbers.items() if n not in self.outdated}

    def run(
        self, cells: Sequence[Cell], evaluations: dict[str, Callable[[Cell], dict[str, float]]]
    ) -> None:
        """Fill all cells, with a progress bar; after each one the file is written.

        Args:
            cells: of :func:`plan`.
            evaluations: metric -> :class:`Evaluation`.
        """
        due = [(c, n) for c in cells for n in evaluations if n not in self.results.get(c, {})]
        total = len(cells) * len(evaluations)
        with tqdm(total=total, initial=total - len(due), desc='settings', unit='test') as bar:
            for cell, name in due:
                metrics = evaluations[name](cell)
                key = next(key for key in METRICS[name] if key in metrics)
                self.results.setdefault(cell, {})[name] = round(float(metrics[key]), 2)
                self._write()
                bar.update()

    def _write(self) -> None:
        cells = [{**asdict(cell), **numbers} for cell, numbers in self.results.items()]
        content = dict(sources=self.sources, cells=[c for c in cells if set(c) & set(METRICS)])
        with write_beside(self.path) as file:
            file.write_text(json.dumps(content, indent=1) + '\n')


def source_of(cfg: Config, checkpoint: str | None) -> str:
    """A hash of what a metric depends on besides the cell: the config and the weights."""
    settings = {k: v for k, v in cfg.to_dict().items() if k not in ('work_dir', 'visualizer')}
    digest = hashlib.sha256(repr(settings).encode())
    if checkpoint is not None and Path(checkpoint).is_file():
        with open(checkpoint, 'rb') as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def best_of(results: dict[Cell, dict[str, float]], cells: Sequence[Cell]) -> Cell:
    """The cell with the highest mIoU; of equal ones the first."""
    return max(cells, key=lambda cell: results[cell]['mIoU'])


def config_line(cell: Cell) -> str:
    """The setting as a line of a config that inherits the plain one."""
    if cell.is_plain:
        return '# no setting is better than the model as it is'
    if cell.alpha_scale is not None:
        return f'model = dict(backbone=dict(alpha_scale={cell.alpha_scale:g}))'
    assert cell.layers is not None
    return (
        "model = dict(backbone=dict(_delete_=True, type='locat_mm.LocAt', start='fixed', "
        f'variance={cell.variance:g}, alpha={cell.alpha:g}, layers={list(cell.layers)}, '
        f'units={cell.units!r}, backbone=_base_.model.backbone))'
    )
