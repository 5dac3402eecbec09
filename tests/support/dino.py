"""A DINO of a few channels in float64, and what two processes make of it."""

import math
from pathlib import Path

import torch
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from torch import Tensor

from locat_mm.registry import MODELS

#: Sides of the crops: two global ones, three local ones.
SIDES = (16, 16, 8, 8, 8)
MAX_ITERS = 10
STEPS = 2


def build(seed: int = 0, **changes) -> torch.nn.Module:
    """``changes``: part of the model -> settings of it."""
    torch.manual_seed(seed)
    cfg = dict(
        type='locat_mm.DINO',
        backbone=dict(
            type='locat_mm.LocAtViT',
            arch=dict(embed_dim=16, depth=2, num_heads=2),
            img_size=16,
            patch_size=4,
            out_type='raw',
        ),
        neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=2),
        head=dict(
            type='locat_mm.DINOHead',
            in_channels=16,
            out_channels=12,
            hidden_channels=20,
            bottleneck_channels=8,
        ),
        loss=dict(teacher_temp=0.07, warmup_teacher_temp=0.04, warmup_epochs=4),
        base_momentum=0.2,
    )
    for part, settings in changes.items():
        merge = isinstance(settings, dict) and isinstance(cfg.get(part), dict)
        cfg[part] = {**cfg[part], **settings} if merge else settings
    model = MODELS.build(cfg)
    model.init_weights()
    # Not next to zero, so that wrong features give wrong logits.
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.2)
    return model.double()


def make_crops(step: int, batch: int = 4, sides: tuple[int, ...] = SIDES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    shapes = [(batch, 3, side, side) for side in sides]
    return [torch.randn(shape, generator=generator, dtype=torch.double) for shape in shapes]


def project_by_hand(head: dict[str, Tensor], x: Tensor) -> Tensor:
    """What DINO's head makes of features ``[N, C]``, from its weights: cosines ``[N, K]``."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ head[f'{name}.weight'].T + head[f'{name}.bias']

    def gelu(x: Tensor) -> Tensor:
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    x = linear('mlp.4', gelu(linear('mlp.2', gelu(linear('mlp.0', x)))))
    prototypes = head['last_layer.weight']
    lengths = x.norm(dim=1)[:, None] * prototypes.norm(dim=1)[None]
    return (x @ prototypes.T) / lengths


def set_progress(epoch: int = 0) -> None:
    """What mmengine's runner tells its models."""
    hub = MessageHub.get_instance('dino')
    hub.update_info('max_iters', MAX_ITERS)
    hub.update_info('epoch', epoch)


def train(model: torch.nn.Module, images: slice) -> tuple[dict, list]:
    """A few steps of gradient descent on some of each batch's images."""
    set_progress()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = model([crop[images] for crop in make_crops(step)], mode='loss')['loss']
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return getattr(model, 'module', model).state_dict(), losses


def train_one_of_two(rank: int, folder: Path) -> None:
    """Half of each batch's images, and what comes of it in ``RANK.pt``."""
    # Other weights in each process: the first's are taken.
    model = MMDistributedDataParallel(build(seed=rank), broadcast_buffers=False)
    torch.save(train(model, slice(2 * rank, 2 * rank + 2)), folder / f'{rank}.pt')
