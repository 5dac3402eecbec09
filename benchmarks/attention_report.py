"""Tables and the plot of benchmarks/attention.py."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attention_cases import PLAIN, PRR, Case
from measure import markdown, median_ratio

__all__ = ['COLUMNS', 'draw', 'make_records', 'progress', 'table']

COLUMNS = (
    *('arch', 'image', 'tokens', 'batch', 'mode', 'variant'),
    *('time (ms)', 'time / plain', 'naive time / it'),
    *('memory (MiB)', 'memory / plain', 'naive memory / it'),
)
Record = dict[str, Any]


def make_records(
    cases: Sequence[Case], times: Mapping[str, list[float]], memory: Mapping[str, float]
) -> list[Record]:
    """Make one record per case of a group.

    Args:
        cases: the group; its cases differ in the variant, and one of them is plain.
        times: variant -> seconds per call, one number per round.
        memory: variant -> MiB.

    Returns:
        records with times in milliseconds per batch (the median, and one number per round).
        Ratios are medians over rounds. ``naive_...`` is None for PRR and if naive is omitted.
    """
    records = []
    for case in cases:
        seconds, mib = times[case.variant], memory[case.variant]
        has_naive = 'naive' in times and case.variant != PRR
        records.append(
            dict(
                part=case.part,
                arch=case.arch,
                size=case.size,
                tokens=case.num_tokens,
                batch_size=case.batch_size,
                mode=case.mode,
                variant=case.variant,
                milliseconds=1e3 * statistics.median(seconds),
                time_to_plain=median_ratio(seconds, times[PLAIN]),
                naive_time_to_it=median_ratio(times['naive'], seconds) if has_naive else None,
                images_per_second=case.batch_size / statistics.median(seconds),
                milliseconds_by_round=[1e3 * s for s in seconds],
                mib=mib,
                memory_to_plain=_ratio(mib, memory[PLAIN]),
                naive_memory_to_it=_ratio(memory['naive'], mib) if has_naive else None,
            )
        )
    return records


def _ratio(numerator: float, denominator: float) -> float | None:
    # The smallest cases need no further memory of the process.
    return numerator / denominator if denominator > 0 else None


def progress(record: Record) -> str:
    """One line about a record."""
    time, memory = _number(record['time_to_plain']), _number(record['memory_to_plain'])
    return (
        f'  {record["variant"]:8} {record["milliseconds"]:10.3f} ms, {time or "–"} × plain; '
        f'{record["mib"]:9.1f} MiB, {memory or "–"} × plain'
    )


def table(records: Sequence[Record]) -> str:
    """A Markdown table."""
    rows = [
        [
            record['arch'],
            f'{record["size"]}²',
            f'{record["tokens"]:,}',
            str(record['batch_size']),
            record['mode'],
            record['variant'],
            f'{record["milliseconds"]:.3f}',
            _number(record['time_to_plain']),
            _number(record['naive_time_to_it']),
            f'{record["mib"]:.1f}',
            _number(record['memory_to_plain']),
            _number(record['naive_memory_to_it']),
        ]
        for record in records
    ]
    return markdown(COLUMNS, rows, num_left=6)


def _number(ratio: float | None) -> str:
    return '' if ratio is None else f'{ratio:.2f}'


def draw(records: Sequence[Record], device: str, out: Path) -> str:
    """Plot time and memory of training against the number of tokens, one line per variant.

    Args:
        records: records of one part and one arch; at least one.
        device: name for the title.
        out: image file to write.

    Returns:
        the title.
    """
    # Imported here, because the processes that measure memory also import this file.
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    records = [record for record in records if record['mode'] == 'training']
    first = records[0]
    what = {'op': 'Attention, forward + backward', 'model': 'ViT, one training step'}[first['part']]
    title = f'{what}, {first["arch"]}, {device}'
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout='constrained')
    panels = (('milliseconds', 'time per image (ms)'), ('mib', 'peak memory per image (MiB)'))
    for axis, (key, label) in zip(axes, panels, strict=True):
        for variant in dict.fromkeys(record['variant'] for record in records):
            points = [
                (record['tokens'], record[key] / record['batch_size'])
                for record in records
                if record['variant'] == variant
            ]
            style = 'k--' if variant == PLAIN else '-'
            axis.plot(*zip(*points, strict=True), style, marker='o', label=variant)
        tokens = sorted({record['tokens'] for record in records})
        axis.set(xscale='log', yscale='log', xlabel='tokens N', ylabel=label)
        axis.set_xticks(tokens, [f'{n:,}' for n in tokens], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(which='both', alpha=0.25)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(out, dpi=150)
    plt.close(figure)
    return title
