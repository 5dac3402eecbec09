"""Two processes give the numbers of one: both evaluations, and training with LocAt attached."""

import json
from pathlib import Path

import timm
import torch
from mmengine.dist import is_main_process
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import locat_mm
from tests.support.evaluation import (
    in_context_config,
    knn_config,
    run,
    write_objects,
    write_scenes,
)
from tests.support.processes import run_in_two


def evaluate(objects: Path, scenes: Path, out: Path) -> dict[str, float]:
    """What one process, or each of several, gets."""
    features = str(out / 'features.safetensors')
    _, accuracy = run(knn_config(objects, out / 'knn', features_out=features))
    _, whole = run(in_context_config(scenes, out / 'in_context'))
    _, bounded = run(in_context_config(scenes, out / 'in_context', max_patches=20))
    found = dict(knn=accuracy, whole=whole, bounded=bounded)
    return {f'{a} {b}': float(value) for a, part in found.items() for b, value in part.items()}


def evaluate_both(rank: int, out: Path, objects: Path, scenes: Path) -> None:
    found = evaluate(objects, scenes, out)
    if is_main_process():
        (out / 'metrics.json').write_text(json.dumps(found))


def test_evaluations(tmp_path, monkeypatch):
    """23 and 5 images do not divide by two."""
    monkeypatch.chdir(tmp_path)  # mmengine collects results in .dist_test
    objects, scenes, alone, both = (
        tmp_path / name for name in ('objects', 'scenes', 'alone', 'both')
    )
    write_objects(objects)
    write_scenes(scenes)
    alone.mkdir()
    both.mkdir()
    expected = evaluate(objects, scenes, alone)
    run_in_two(evaluate_both, both, objects, scenes)
    assert json.loads((both / 'metrics.json').read_text()) == expected
    features, reference = (load_file(f / 'features.safetensors') for f in (both, alone))
    assert [len(reference[name]) for name in ('bank', 'queries')] == [23, 9]
    for name, value in reference.items():
        torch.testing.assert_close(features[name], value, rtol=0, atol=1e-6, msg=name)


def make_host() -> nn.Module:
    torch.manual_seed(0)
    host = timm.create_model(
        'vit_tiny_patch16_224',
        img_size=64,
        depth=2,
        embed_dim=48,
        num_heads=3,
        num_classes=5,
        global_pool='avg',
    )
    return locat_mm.attach(host)


def make_images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def loss(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).square().sum(1).mean()


def step_attached(rank: int, folder: Path) -> None:
    model = DistributedDataParallel(make_host())  # raises if a parameter gets no gradient
    for _ in range(2):  # an unused parameter shows in the second step
        model.zero_grad()
        loss(model, make_images()[2 * rank : 2 * rank + 2]).backward()
    torch.save({n: p.grad for n, p in model.module.named_parameters()}, folder / f'{rank}.pt')


def test_an_attached_host(tmp_path):
    run_in_two(step_attached, tmp_path)
    results = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    host, images = make_host(), make_images()
    loss(host, images).backward()
    for name, parameter in host.named_parameters():
        torch.testing.assert_close(results[0][name], results[1][name], rtol=0, atol=0)
        torch.testing.assert_close(results[0][name], parameter.grad, rtol=1e-4, atol=1e-6)
