"""What the demo can run: rows of models, and how far each goes."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ['PLANS', 'ROOT', 'SMOKE', 'Plan', 'Row']

ROOT = Path(__file__).resolve().parents[2]
#: ``--smoke``: a few updates, to see that everything is wired
SMOKE = {
    'classify': ['train_cfg.max_epochs=1', 'param_scheduler=None'],
    'segment': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2'],
}
#: ``--families``: two epochs and 150 iterations, the global batch on two processes
SHORT = {
    'classify': ['train_cfg.max_epochs=2', 'train_dataloader.batch_size=32'],
    'segment': [
        *('train_cfg.max_iters=150', 'train_cfg.val_interval=150'),
        *('param_scheduler.0.total_steps=150', 'train_dataloader.batch_size=8'),
    ],
}


@dataclass(frozen=True)
class Row:
    """One line of the table: its name, the stem of its two configs, and whose classifier its own
    starts from.
    """

    name: str
    stem: str
    start: 'Row | None' = None


DEMO = (Row('ViT', 'vit'), Row('LocAtViT', 'locatvit'))
ABLATION = (
    Row('ViT', 'vit'),
    Row('ViT + GAug', 'ablation/vit_gaug'),
    Row('ViT + PRR', 'ablation/vit_prr'),
    Row('LocAtViT', 'locatvit'),
    Row('ViT + GAP', 'ablation/vit_gap'),
    Row('ViT - position embedding', 'ablation/vit_nopos'),
    Row('LocAtViT - position embedding', 'ablation/locatvit_nopos'),
)


FAMILIES = (
    *DEMO,
    *(
        Row(f'{locat}{family}', f'families/{locat}{family}'.lower())
        for family in ('RegViT', 'RoPEViT', 'Jumbo', 'Swin')
        for locat in ('', 'LocAt')
    ),
)
ATTACH = (
    DEMO[0],
    Row('ViT, 4 more', 'attach/vit', DEMO[0]),
    Row('LocAt attached', 'attach/locatvit', DEMO[0]),
)


@dataclass(frozen=True)
class Plan:
    """A table: its rows, where they run, for how long and on how many processes."""

    rows: tuple[Row, ...]
    folder: str
    options: dict[str, list[str]] = field(default_factory=dict)
    processes: int = 1
    summary: str = 'summary'
    picture: str | None = None
    #: also look at the pretrained features: k-NN, in-context segmentation, a figure of kernels
    features: bool = False

    def root(self, smoke: bool) -> Path:
        return Path('work_dirs') / (f'{self.folder}_smoke' if smoke else self.folder)

    def work_dir(self, row: Row, seed: int, smoke: bool) -> Path:
        return self.root(smoke) / row.stem / f'seed{seed}'

    def command(self, tool: str, args: list[str]) -> list[str]:
        """A tool, such as ``'train'``, with its arguments, as a user would call it."""
        if self.processes == 1 or tool not in ('train', 'test'):
            return [sys.executable, str(ROOT / 'tools' / f'{tool}.py'), *args]
        count = 2 if tool == 'test' else 1  # config and checkpoint, or the config
        script = str(ROOT / 'tools' / f'dist_{tool}.sh')
        return ['bash', script, *args[:count], str(self.processes), *args[count:]]


PLANS = {
    'demo': Plan(DEMO, 'demo', picture='demo.png', features=True),
    'ablation': Plan(ABLATION, 'demo_ablation'),
    'families': Plan(FAMILIES, 'demo_families', SHORT, processes=2),
    'attach': Plan(ATTACH, 'demo', summary='attach', picture='attach.png'),
}
