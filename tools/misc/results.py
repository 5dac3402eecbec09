"""Write the tables of docs/results.md from the summaries of runs in docs/results/.

A table stands between ``<!-- results: SUMMARY TABLE -->`` and ``<!-- end -->``. A table of two
summaries has the name of the second behind its own. By default the tables are only compared with
the summaries, and a difference is an error. Figures are drawn beside the summaries.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from paper import paper_tables
from result_figures import FIGURES, draw
from scipy import stats
from summaries import METRICS, metrics_of, paired_differences, pairs_of, values_of

from locat_mm.checkpoint import write_beside
from locat_mm.cli.reporting import reports_errors

ROOT = Path(__file__).resolve().parents[2]
_MARKER = '<!-- results:'
_BLOCK = re.compile(
    rf'({_MARKER} (\w+) (\w+)(?: (\w+))? -->\n)(?:(?!{_MARKER}).)*?(<!-- end -->)', re.DOTALL
)


def paired_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of paired differences: percentile bootstrap, 9,999 resamples.

    Args:
        differences: one per seed; at least two.

    Raises:
        ValueError: if there is only one.
    """
    if len(differences) < 2:
        raise ValueError(f'an interval needs at least two seeds, got {len(differences)}')
    found = stats.bootstrap(
        *((differences,), np.mean), n_resamples=9999, method='percentile', random_state=0
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def holds(differences: np.ndarray) -> bool:
    """Whether Student's 95 % interval of the mean excludes 0; it is wider than the bootstrap's."""
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return bool(abs(np.mean(differences)) > half)


def quality_table(summary: dict) -> list[list[str]]:
    """Mean ± sample deviation of every model."""
    metrics, rows = metrics_of(summary), summary['rows']
    table = [['model', *(METRICS[metric] for metric in metrics), 'seeds', 'parameters']]
    for row in rows:
        cells = [row['name']]
        cells += [mean_cell(row, m) if m in row['runs'][0] else '' for m in metrics]
        cells += [str(len(row['runs'])), f'{row["params"]:,}' if 'params' in row else '']
        table.append(cells)
    return table


def mean_cell(row: dict, metric: str) -> str:
    """Mean ± sample deviation of a metric of one model."""
    values = values_of(row, metric)
    spread = f' ± {np.std(values, ddof=1):.2f}' if len(values) > 1 else ''
    return f'{np.mean(values):.2f}{spread}'


def paper_numbers() -> dict[str, dict[str, float]]:
    """Name of a model -> metric -> the paper's number.

    The ablation's tiny models are also found by their names without a size, as the demo has them.
    """
    tables = paper_tables()
    named = {row.name: row.numbers for rows in tables.values() for row in rows}
    tiny = [row for row in tables['ablation'] if row.size == 'tiny']
    return named | {row.name.removesuffix(', Tiny'): row.numbers for row in tiny}


def paper_table(summary: dict) -> list[list[str]]:
    """:func:`quality_table` beside the paper's numbers, for the metrics that the paper has."""
    paper = paper_numbers()
    known = {metric for numbers in paper.values() for metric in numbers}
    metrics = [metric for metric in metrics_of(summary) if metric in known]
    names = ' / '.join(METRICS[metric].removesuffix(' (%)') for metric in metrics)
    header, *rows = quality_table(summary)
    table = [[*header, f"the paper's {names} (%)"]]
    for row in rows:
        numbers = paper.get(row[0])
        cells = [f'{numbers[m]:.2f}' if m in numbers else '-' for m in metrics] if numbers else []
        table.append([*row, ' / '.join(cells)])
    return table


def difference_table(summary: dict) -> list[list[str]]:
    """Differences to the first model that has all metrics: mean and 95 % interval over seeds.

    Then those of the pairs that the summary asks for. Only seeds that both models have count.
    """
    metrics = metrics_of(summary)
    whole = {row['name']: row for row in summary['rows'] if set(metrics) <= set(row['runs'][0])}
    first, *others = whole
    table = [['difference', *(METRICS[metric] for metric in metrics), 'seeds']]
    for one, other in [*((name, first) for name in others), *summary.get('compared', ())]:
        found = [paired_differences(whole[one], whole[other], metric) for metric in metrics]
        cells = map(difference_cell, found)
        table.append([f'{one} minus {other}', *cells, str(len(found[0]))])
    return table


def difference_cell(differences: np.ndarray) -> str:
    """Mean and 95 % interval of paired differences, bold if the mean :func:`holds`."""
    return interval_cell(np.mean(differences), *paired_interval(differences), holds(differences))


def interval_cell(mean: float, low: float, high: float, bold: bool) -> str:
    """A difference and its interval."""
    cell = f'{mean:+.2f} [{low:+.2f}, {high:+.2f}]'
    return f'**{cell}**' if bold else cell


def gain_table(summary: dict) -> list[list[str]]:
    """LocAtViT minus ViT for every width and number of images of ``make demo-growth``."""
    metrics = metrics_of(summary)
    headers = [METRICS[metric] for metric in metrics]
    table = [['width', 'parameters of ViT', 'images', *headers, 'seeds']]
    for pair in pairs_of(summary):
        gains = [pair.gains(metric) for metric in metrics]
        size = [str(pair.width), f'{pair.plain["params"]:,}', f'{pair.images:,}']
        table.append([*size, *map(difference_cell, gains), str(len(gains[0]))])
    return table


def change_table(summary: dict, other: dict) -> list[list[str]]:
    """How much larger every model's values are than those of another summary.

    Then the same of its differences to the first model. Mean and Welch's 95 % interval: the seeds
    of two summaries are not pairs. Bold if it excludes 0.
    """
    metrics = metrics_of(summary)
    found, earlier = ({row['name']: row for row in s['rows']} for s in (summary, other))
    first, *others = names = [name for name in found if name in earlier]
    table = [['change', *(METRICS[metric] for metric in metrics)]]
    for name in names:
        cells = [welch_cell(*(values_of(s[name], m) for s in (found, earlier))) for m in metrics]
        table.append([name, *cells])
    for name in others:
        pairs = [(s[name], s[first]) for s in (found, earlier)]
        cells = [welch_cell(*(paired_differences(*pair, m) for pair in pairs)) for m in metrics]
        table.append([f'{name} minus {first}', *cells])
    return table


def welch_cell(new: np.ndarray, old: np.ndarray) -> str:
    """Difference of the means of two independent samples and Welch's 95 % interval."""
    low, high = stats.ttest_ind(new, old, equal_var=False).confidence_interval()
    return interval_cell(new.mean() - old.mean(), low, high, low * high > 0)


def claim_table(summary: dict) -> list[list[str]]:
    """Every value of a summary of ``make demo-claims``: one line each, a column for each model.

    The last columns are the differences that the summary asks for. All models have the same seeds.
    """
    rows = {row['name']: row for row in summary['rows']}
    pairs = summary['compared']
    (seeds,) = {len(row['runs']) for row in rows.values()}
    table = [[f'{seeds} seeds', *rows, *(f'{one} minus {other}' for one, other in pairs)]]
    for value in next(iter(rows.values()))['runs'][0]:
        means = [mean_cell(row, value) for row in rows.values()]
        differences = [paired_differences(rows[a], rows[b], value) for a, b in pairs]
        table.append([value, *means, *map(difference_cell, differences)])
    return table


def about_table(summary: dict) -> list[list[str]]:
    """How the summary was made."""
    return [['', ''], *([key, value] for key, value in summary['about'].items())]


TABLES: dict[str, Callable[..., list[list[str]]]] = {
    'quality': quality_table,
    'paper': paper_table,
    'differences': difference_table,
    'change': change_table,
    'gains': gain_table,
    'claims': claim_table,
    'about': about_table,
}
#: tables of two summaries
OF_TWO = {'change'}


def fill(text: str, folder: Path) -> str:
    """The page with its tables written anew.

    Args:
        text: of the page.
        folder: of the summaries.

    Raises:
        FileNotFoundError: if a summary is missing.
        ValueError: if the page has no table, or names one that there is not, or one with the wrong
            number of summaries, or a line is not a marker or has no end.
    """

    def block(found: re.Match) -> str:
        opening, name, kind, second, closing = found.groups()
        if kind not in TABLES:
            raise ValueError(f'no table {kind!r}; there are {", ".join(TABLES)}')
        if (kind in OF_TWO) != (second is not None):
            count = 'two summaries' if kind in OF_TWO else 'one summary'
            raise ValueError(f'the table {kind!r} is of {count}: {opening.strip()}')
        names = [name, second] if second else [name]
        header, *rows = TABLES[kind](
            *(json.loads((folder / f'{n}.json').read_text()) for n in names)
        )
        lines = [header, ['---'] * len(header), *rows]
        return opening + ''.join(f'| {" | ".join(line)} |\n' for line in lines) + closing

    filled, count = _BLOCK.subn(block, text)
    if not count:
        raise ValueError(f'the page has no line {_MARKER} SUMMARY TABLE -->')
    if count != text.count(_MARKER):
        known = {found[1] for found in _BLOCK.finditer(text)}
        lines = [f'{line}\n' for line in text.splitlines() if _MARKER in line]
        wrong = ''.join(line for line in lines if line not in known)
        raise ValueError(f'not "{_MARKER} SUMMARY TABLE -->", or no <!-- end --> follows:\n{wrong}')
    return filled


@reports_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--page', type=Path, default=ROOT / 'docs' / 'results.md')
    parser.add_argument('--write', action='store_true', help='write the tables into the page')
    parser.add_argument(
        '--figures', action='store_true', help=f'draw the figures: {", ".join(FIGURES)}'
    )
    args = parser.parse_args(argv)
    text = args.page.read_text(encoding='utf-8')
    folder = args.page.with_suffix('')
    filled = fill(text, folder)
    if args.write:
        with write_beside(args.page) as beside:
            beside.write_text(filled, encoding='utf-8')
    elif filled != text:
        pairs = zip(text.splitlines(), filled.splitlines(), strict=False)
        stale = [f'  {old}\n  should be\n  {new}' for old, new in pairs if old != new]
        raise ValueError(
            f'{args.page} is not what its summaries say; run this tool with --write:\n'
            + '\n'.join(stale)
        )
    if args.figures:
        drawn = draw(folder)
        for name in FIGURES:
            path = folder / f'{name}.png'
            print(f'{path}: drawn' if path in drawn else f'{path}: no {name}.json to draw it from')
    print(f'{args.page}: {len(_BLOCK.findall(text))} tables, as the summaries say')


if __name__ == '__main__':
    main()
