"""The steps of the demo's experiments: data, training, tests. No step is done twice."""

import functools
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments import ROOT, SMOKE, Data, Experiment, Row
from mmengine.config import Config
from tuning import write_tuned

from locat_mm.checkpoint import read_state_dict
from locat_mm.cli.running import run_command

__all__ = [
    'digest',
    'evaluate_features',
    'features_fingerprint',
    'fingerprint',
    'last_checkpoint',
    'make_data',
    'prepare_run',
    'run_command',
    'run_row',
    'write_result',
]

PARTS = ('classify', 'segment')


def make_data(data: Data) -> None:
    """Write a data set, unless this version of its converter already wrote it.

    Raises:
        SystemExit: if the converter fails; it has printed the reason.
    """
    converter = ROOT / 'tools' / 'dataset_converters' / f'{data.name}.py'
    meta = data.folder / 'meta.json'
    source = hashlib.sha256(converter.read_bytes()).hexdigest()
    if not meta.exists() or json.loads(meta.read_text())['source'] != source:
        command = [sys.executable, str(converter), '--out-dir', str(data.folder)]
        if subprocess.run(command).returncode:
            raise SystemExit(f'{converter.name} failed')


def fingerprint(row: Row, experiment: Experiment, smoke: bool) -> str:
    """A hash of configs, data and options: not of the code, and not of the seed."""
    parts = ('tune', *PARTS) if row.tunes else PARTS
    configs = [experiment.data.config(f'{row.stem}_{part}') for part in parts]
    settings: list = [experiment.options, experiment.processes, smoke]
    if row.options:
        settings.append(row.options)
    return digest(experiment.data, configs, *settings)


def digest(data: Data, configs: list[Path], *settings: object) -> str:
    """A hash of configs, data and further settings."""
    contents = [_read(path) for path in configs]
    meta = (data.folder / 'meta.json').read_text()
    return hashlib.sha256(repr((contents, meta, settings)).encode()).hexdigest()


@functools.cache  # a run asks for each config several times per seed
def _read(config: Path) -> dict:
    return Config.fromfile(config).to_dict()


def prepare_run(label: str, work_dir: Path, current: str) -> dict | None:
    """Create the folder of a run, or empty it if it belongs to another fingerprint.

    Args:
        label: the run's name, for messages.
        work_dir: the folder.
        current: the fingerprint of the run.

    Returns:
        the result if the run is already done, else None.
    """
    fingerprint_file, result_file = work_dir / 'fingerprint', work_dir / 'result.json'
    if work_dir.exists() and (
        not fingerprint_file.exists() or fingerprint_file.read_text() != current
    ):
        print(f'{label}: configs or data have changed, so it starts again')
        shutil.rmtree(work_dir)
    if result_file.exists():
        print(f'{label}: already done')
        return json.loads(result_file.read_text())
    work_dir.mkdir(parents=True, exist_ok=True)
    fingerprint_file.write_text(current)
    return None


def write_result(work_dir: Path, result: dict) -> dict:
    """Write the result of a run, which marks it as done; return the result."""
    (work_dir / 'result.json').write_text(json.dumps(result))
    return result


def feature_configs(row: Row, data: Data) -> list[Path]:
    """The configs of k-NN and of in-context segmentation."""
    folder, slash, name = row.stem.rpartition('/')
    names = (f'{row.stem}_classify', f'{folder}{slash}in_context_{name}')
    return [data.config(name) for name in names]


def features_fingerprint(row: Row, data: Data) -> str:
    """A hash of what the evaluations of features depend on besides the trained weights."""
    return digest(data, feature_configs(row, data), row.vector)


def evaluate_features(row: Row, seed: int, experiment: Experiment, smoke: bool) -> dict:
    """Evaluate the pretrained features without further training, unless it is already done.

    Returns:
        ``knn`` (top-1 of 20 neighbours) and ``in_context`` (mIoU), percent.
    """
    work_dir = experiment.work_dir(row, seed, smoke)
    result_file = work_dir / 'features.json'
    current = features_fingerprint(row, experiment.data)
    if result_file.exists():
        results = json.loads(result_file.read_text())
        if results.pop('fingerprint', None) == current:  # none: by an older version
            return results
    checkpoint = last_checkpoint(experiment.work_dir(row.source, seed, smoke) / 'classify')
    classifier, in_context = map(str, feature_configs(row, experiment.data))
    results = {}
    for name, key, args in (
        ('knn', 'knn/top1_k20', [classifier, checkpoint, '--k', '20', '--features', row.vector]),
        ('in_context', 'mIoU', [in_context, checkpoint, '--prefix', 'backbone']),
    ):
        part_dir = work_dir / name
        out = part_dir / 'metrics.json'
        args += ['--work-dir', str(part_dir), '--out', str(out)]
        command = experiment.command(f'analysis_tools/{name}', args)
        run_command(f'{row.name}, seed {seed}, {name}', part_dir / 'test.txt', command)
        results[name] = round(json.loads(out.read_text())[key], 2)
    result_file.write_text(json.dumps(dict(results, fingerprint=current)))
    return results


def run_row(row: Row, seed: int, experiment: Experiment, smoke: bool) -> dict:
    """Train one model and its decoder, or continue where an earlier run stopped.

    Returns:
        ``name``, ``top1`` and ``miou`` (percent), ``params`` (of the backbone) and
        ``seconds`` (wall time of both trainings).
    """
    work_dir = experiment.work_dir(row, seed, smoke)
    current = fingerprint(row, experiment, smoke)
    earlier = prepare_run(f'{row.name}, seed {seed}', work_dir, current)
    if earlier is not None:
        return earlier
    metrics, checkpoints = {}, {}
    for part in PARTS:
        label = f'{row.name}, seed {seed}, {part}'
        print(f'{label} ...', flush=True)
        config = str(experiment.data.config(f'{row.stem}_{part}'))
        part_dir = work_dir / part
        chosen = SMOKE if smoke else experiment.options
        of_row = row.options.get(part, [])
        options = [f'randomness.seed={seed}', *of_row, *chosen.get(part, ())]
        if part == 'classify' and row.start is not None:
            start = last_checkpoint(experiment.work_dir(row.start, seed, smoke) / part)
            options.append(f'model.init_cfg.checkpoint={start}')
            checkpoints[part] = tune(row, seed, experiment, smoke, start) if row.tunes else start
        if part == 'segment':
            options.append(f'model.backbone.init_cfg.checkpoint={checkpoints["classify"]}')
        if part == 'segment' or row.trains:
            checkpoints[part] = train(label, config, part_dir, options, experiment)
        out = part_dir / 'metrics.json'
        run_command(
            f'{label}, test',
            part_dir / 'test.txt',
            experiment.command(
                'test',
                [
                    *(config, checkpoints[part], '--work-dir', str(part_dir / 'test')),
                    *('--out', str(out), '--out-item', 'metrics'),
                    *(['--cfg-options', *of_row] if of_row else []),
                ],
            ),
        )
        metrics[part] = json.loads(out.read_text())
    result = dict(
        name=row.name,
        top1=round(metrics['classify']['accuracy/top1'], 2),
        miou=round(metrics['segment']['mIoU'], 2),
        params=count_parameters(checkpoints['classify']),
        seconds=round(float((work_dir / 'seconds').read_text()), 1),
    )
    return write_result(work_dir, result)


def train(label: str, config: str, folder: Path, options: list[str], experiment: Experiment) -> str:
    """Train a config, or continue where an earlier run stopped.

    Args:
        label: the training's name, for messages.
        config: its file.
        folder: of logs and checkpoints. The wall time is added to ``seconds`` beside it.
        options: ``--cfg-options``.
        experiment: says how tools are called.

    Returns:
        the last checkpoint.
    """
    args = [config, '--work-dir', str(folder), '--resume', '--cfg-options', *options]
    with add_elapsed_time(folder.with_name('seconds')):
        run_command(label, folder / 'train.txt', experiment.command('train', args))
    return last_checkpoint(folder)


def tune(row: Row, seed: int, experiment: Experiment, smoke: bool, start: str) -> str:
    """Train a few numbers of a trained classifier.

    Args:
        row, seed, experiment, smoke: as for :func:`run_row`.
        start: checkpoint of the classifier.

    Returns:
        the checkpoint of the tuned classifier.
    """
    assert row.tunes is not None
    work_dir = experiment.work_dir(row, seed, smoke)
    label, folder = f'{row.name}, seed {seed}, tune', work_dir / 'tune'
    out = work_dir / 'classify' / 'tuned.pth'
    print(f'{label} ...', flush=True)
    options = [f'randomness.seed={seed}', f'{row.tunes}={start}', *(SMOKE['tune'] if smoke else ())]
    config = str(experiment.data.config(f'{row.stem}_tune'))
    write_tuned(start, train(label, config, folder, options, experiment), out)
    (out.parent / 'last_checkpoint').write_text(str(out))
    return str(out)


def last_checkpoint(folder: Path) -> str:
    return (folder / 'last_checkpoint').read_text().strip()


@contextmanager
def add_elapsed_time(file: Path) -> Iterator[None]:
    """Add the time spent in the context to the seconds in a file, also after an error."""
    before = float(file.read_text()) if file.exists() else 0.0
    start = time.monotonic()
    try:
        yield
    finally:
        file.write_text(str(before + time.monotonic() - start))


def count_parameters(checkpoint: str) -> int:
    """Parameters of the backbone in a checkpoint."""
    state = read_state_dict(checkpoint)
    return sum(value.numel() for key, value in state.items() if key.startswith('backbone.'))
