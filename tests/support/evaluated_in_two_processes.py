"""Both evaluations on two processes over gloo; in a module of its own for the processes."""

import json
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from torch import distributed, multiprocessing

from .evaluation import in_context_config, knn_config, run


def evaluate(objects: Path, scenes: Path, out: Path) -> dict[str, float]:
    """What one process, or each of several, gets."""
    features = str(out / 'features.safetensors')
    _, accuracy = run(knn_config(objects, out / 'knn', features_out=features))
    _, whole = run(in_context_config(scenes, out / 'in_context'))
    _, bounded = run(in_context_config(scenes, out / 'in_context', max_patches=20))
    found = dict(knn=accuracy, whole=whole, bounded=bounded)
    return {f'{a} {b}': float(value) for a, part in found.items() for b, value in part.items()}


def start(objects: Path, scenes: Path, out: Path) -> None:
    multiprocessing.spawn(_work, args=(objects, scenes, out), nprocs=2)


def _work(rank: int, objects: Path, scenes: Path, out: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{out}/store', rank=rank, world_size=2)
    found = evaluate(objects, scenes, out)
    if is_main_process():
        (out / 'metrics.json').write_text(json.dumps(found))
    distributed.destroy_process_group()
