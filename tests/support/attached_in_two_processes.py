"""An attached host under DistributedDataParallel; in a module of its own for the processes."""

from pathlib import Path

import timm
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import locat_mm


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


def run(folder: Path) -> None:
    multiprocessing.spawn(_work, args=(folder,), nprocs=2)


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    model = DistributedDataParallel(make_host())  # raises if a parameter gets no gradient
    for _ in range(2):  # an unused parameter shows in the second step
        model.zero_grad()
        loss(model, make_images()[2 * rank : 2 * rank + 2]).backward()
    torch.save({n: p.grad for n, p in model.module.named_parameters()}, folder / f'{rank}.pt')
    distributed.destroy_process_group()
