"""The demo's result table."""

import datetime
import os
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from locat_mm.helpers import cpu_name

__all__ = ['average', 'collect', 'show']


def average(results: list[dict]) -> dict:
    """Mean and sample standard deviation of one model over its seeds."""
    summary = {key: results[0][key] for key in ('name', 'params')}
    for key in results[0]:
        if key in ('name', 'params'):
            continue
        values = [result[key] for result in results]
        summary[key] = round(float(np.mean(values)), 2)
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        summary[f'{key}_std'] = round(deviation, 2)
    return summary


def collect(
    runs: dict[str, list[dict]], command: str, compared: Sequence[tuple[str, str]] = ()
) -> dict:
    """All results of an experiment, as ``tools/misc/results.py`` reads them.

    Args:
        runs: name of a model -> its results, seed by seed.
        command: what was run.
        compared: pairs of models; the second is subtracted from the first.
    """
    rows = []
    for name, results in runs.items():
        row: dict = dict(name=name)
        if 'params' in results[0]:
            row['params'] = results[0]['params']
        row['runs'] = [
            {key: value for key, value in result.items() if key not in ('name', 'params')}
            for result in results
        ]
        rows.append(row)
    about = dict(
        command=command,
        date=str(datetime.date.today()),
        device=f'{cpu_name()}, {os.cpu_count()} cores, one thread for each model',
        torch=torch.__version__,
    )
    return dict(about=about, rows=rows, compared=compared)


def show(rows: list[dict]) -> None:
    """Print the table, one row per model. A row may lack values."""

    def cell(row: dict, key: str, digits: int) -> str:
        if key not in row:
            return '-'
        deviation = row.get(f'{key}_std')
        spread = '' if deviation is None else f' ± {deviation:.{digits}f}'
        return f'{row[key]:.{digits}f}{spread}'

    table = Table()
    table.add_column('model', no_wrap=True)
    quality_of = {'top1': 'top-1 (%)', 'miou': 'mIoU (%)'}
    if any('knn' in row for row in rows):
        quality_of |= {'knn': 'k-NN (%)', 'in_context': 'in-context mIoU (%)'}
    for header in (*quality_of.values(), 'parameters', 'training (s)'):
        table.add_column(header, justify='right', no_wrap=True)
    for row in rows:
        quality = [cell(row, key, 2) for key in quality_of]
        params = f'{row["params"]:,}' if 'params' in row else '-'
        table.add_row(row['name'], *quality, params, cell(row, 'seconds', 0))
    Console(width=140).print(table)
