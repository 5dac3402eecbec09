"""The paper's tables: configs and numbers of every row, read from docs/model_zoo.md."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ['PaperRow', 'paper_tables']

ROOT = Path(__file__).resolve().parents[2]
#: column of the page -> metric in a summary of results
METRICS = {
    'ImageNet': 'top1',
    'ADE20K': 'miou',
    'PASCAL Context': 'pcontext',
    'COCO-Stuff': 'cocostuff',
}
_MODEL = re.compile(r'\[(.+)\]\(\.\./configs/(.+)_imagenet\.py\)')


@dataclass(frozen=True)
class PaperRow:
    """One model of a table.

    Attributes:
        name: of the model and its size, such as ``'ViT-Tiny'``, ``'ViT + GAug, Tiny'``.
        stem: its configs without the task, below configs/: ``'vit/vit_tiny'``.
        numbers: metric -> the paper's number, percent.
    """

    name: str
    stem: str
    numbers: dict[str, float]

    @property
    def size(self) -> str:
        return self.stem.rpartition('_')[2]


def paper_tables() -> dict[str, list[PaperRow]]:
    """The rows of ``'main'`` and ``'ablation'``, in the page's order; smaller models come first."""
    text = (ROOT / 'docs' / 'model_zoo.md').read_text(encoding='utf-8')
    main = []
    for cells in _cells(text, 'Main results'):
        found = _MODEL.fullmatch(cells.pop('model'))
        assert found is not None
        numbers = {METRICS[name]: float(cells[name]) for name in METRICS}
        main.append(PaperRow(*found.groups(), numbers))
    ablation = []
    for size in ('Tiny', 'Base'):
        for cells in _cells(text, 'Ablation'):
            stem = cells['config'].strip('`').replace('*', size.lower())
            numbers = {METRICS[n]: float(cells[f'{n}, {size}']) for n in ('ImageNet', 'ADE20K')}
            ablation.append(PaperRow(f'{cells["row"]}, {size}', stem, numbers))
    return dict(main=main, ablation=ablation)


def _cells(text: str, section: str) -> list[dict[str, str]]:
    """The rows of a section's table: column -> cell."""
    part = text.partition(f'\n## {section}')[2].partition('\n## ')[0]
    lines = [line for line in part.splitlines() if line.startswith('|')]
    header, _, *rows = ([cell.strip() for cell in line.split('|')[1:-1]] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]
