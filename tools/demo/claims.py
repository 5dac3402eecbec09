"""Measure what the paper says besides accuracy, on four models of the ablation over several seeds.

``run.py --ablation`` would train the same models in the same folders, and what is there is not
trained again. Then it is measured how similar the patches of each block are to [CLS], how much
gradient reaches the GAug of each block, and how classifier and decoder take larger and damaged
images. The results are ``similarity.json``, ``gradient.json`` and ``robustness.json``.
``tools/misc/results.py`` writes their tables, once they are in ``docs/results``.
"""

import argparse
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from evaluating import CHANGES, CalibrationError, TrainedModel
from experiments import EXPERIMENTS, Row
from mmengine.logging import MMLogger
from run import parse_scale, run_rows
from steps import last_checkpoint, make_data
from table import collect
from torch import Tensor, nn

from locat_mm.analysis.measures import cls_similarity
from locat_mm.cli.reporting import reports_errors

#: file -> pairs of models that it compares: the second is subtracted from the first
COMPARED = {
    'similarity': (('ViT + PRR', 'ViT'), ('LocAtViT', 'ViT + GAug')),
    'gradient': (('LocAtViT', 'ViT + GAug'),),
    'robustness': (('LocAtViT', 'ViT'),),
}
#: file -> its models
MODELS = {file: {name for pair in pairs for name in pair} for file, pairs in COMPARED.items()}


def similarity_by_block(trained: TrainedModel) -> dict[str, float]:
    """Mean cosine similarity of the patches to [CLS] behind every block, percent."""
    outputs: dict[nn.Module, list[Tensor]] = {block: [] for block in trained.blocks()}

    def keep(block: nn.Module, args: tuple, tokens: Tensor) -> None:
        outputs[block].append(cls_similarity(tokens, 1).mean(-1))

    handles = [block.register_forward_hook(keep) for block in outputs]
    try:
        trained.evaluate()
    finally:
        for handle in handles:
            handle.remove()
    means = [float(torch.cat(values).mean()) for values in outputs.values()]
    return {f'block {number}': 100 * mean for number, mean in enumerate(means, 1)}


def gradient_by_block(trained: TrainedModel) -> dict[str, float]:
    """Share of every block in the squared norm of the loss's gradient in GAug, percent.

    The mean over batches of validation images.
    """
    gaugs = [block.attn.gaug for block in trained.blocks()]
    shares = []
    for loss in trained.losses():
        trained.model.zero_grad()
        loss.backward()
        norms = [sum(p.grad.square().sum() for p in gaug.parameters()) for gaug in gaugs]
        shares.append(torch.stack(norms) / sum(norms))
    means = torch.stack(shares).mean(0)
    return {f'block {number}': 100 * float(share) for number, share in enumerate(means, 1)}


def robustness(classifier: TrainedModel, segmentor: TrainedModel) -> dict[str, float]:
    """Top-1 and mIoU on changed images, and the calibration of the decoder, percent."""
    found = {}
    for name, changes in CHANGES.items():
        found[f'top-1, {name}'] = float(classifier.evaluate(changes)['accuracy/top1'])
    errors = {}
    for name, changes in CHANGES.items():
        metrics = segmentor.evaluate(changes, [CalibrationError()])
        found[f'linear mIoU, {name}'] = float(metrics['mIoU'])
        errors[name] = metrics['pixels/ece']
    found['calibration error'] = errors['as they are']
    return found


def measure(row: Row, seed: int, smoke: bool) -> dict[str, dict[str, float]]:
    """All that is measured of one trained model: file -> value by its name."""
    print(f'{row.name}, seed {seed}: measuring ...', flush=True)
    experiment = EXPERIMENTS['ablation']

    def trained(part: str) -> TrainedModel:
        checkpoint = last_checkpoint(experiment.work_dir(row, seed, smoke) / part)
        return TrainedModel(experiment.data.config(f'{row.stem}_{part}'), checkpoint)

    classifier = trained('classify')
    measures = dict(
        similarity=lambda: similarity_by_block(classifier),
        gradient=lambda: gradient_by_block(classifier),
        robustness=lambda: robustness(classifier, trained('segment')),
    )
    return {file: measures[file]() for file, names in MODELS.items() if row.name in names}


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_scale(argparse.ArgumentParser(description=__doc__), argv)
    experiment = EXPERIMENTS['ablation']
    rows = [row for row in experiment.rows if row.name in set.union(*MODELS.values())]
    make_data(experiment.data)
    jobs = [(row, seed) for seed in range(args.seeds) for row in rows]
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            list(run_rows(jobs, experiment, args.smoke, pool))
        finally:
            pool.shutdown(cancel_futures=True)
    # Such small tensors are not faster on two threads, and much slower beside another job.
    torch.set_num_threads(1)
    # mmengine warns of every change of the scope, and IoUMetric logs a table of classes.
    MMLogger.get_instance('claims', log_level=logging.ERROR)
    measured = {job: measure(*job, args.smoke) for job in jobs}
    out_dir = Path('work_dirs', 'demo_claims_smoke' if args.smoke else 'demo_claims')
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, pairs in COMPARED.items():
        of_rows = {
            row.name: [measured[row, seed][name] for seed in range(args.seeds)]
            for row in rows
            if row.name in MODELS[name]
        }
        summary = collect(of_rows, f'make demo-claims SEEDS={args.seeds}', pairs)
        file = out_dir / f'{name}.json'
        file.write_text(json.dumps(summary, indent=1) + '\n')
        print(f'Measured: {file}')


if __name__ == '__main__':
    main()
