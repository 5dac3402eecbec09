"""Part model of benchmarks/attention.py: plain ViT and LocAtViT (GAug, PRR) as classifiers."""

from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from attention_cases import PATCH, PLAIN, Case
from torch import Tensor, nn
from torch.nn import functional as F

from locat_mm.models import LocAtViT, PatchRepresentationRefinement

__all__ = ['Classifier', 'add_arguments', 'make_call', 'prepare']

_NUM_CLASSES = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of a program that measures one size of model on the CPU."""
    parser.add_argument('--arch', default='tiny', choices=list(LocAtViT.ARCHS))
    parser.add_argument('--size', type=int, default=224, help='pixels')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', type=int, default=2)


class Classifier(nn.Module):
    """Backbone, PRR (LocAt only), linear head on [CLS]: ``[B, 3, H, W]`` to ``[B, classes]``.

    Args:
        case: architecture, size and backend.
        kernel: of GAug, see :class:`locat_mm.models.LocAtViT`.
    """

    def __init__(self, case: Case, kernel: str = 'axis') -> None:
        super().__init__()
        is_plain = case.variant == PLAIN
        self.backbone = LocAtViT(
            case.dimensions,
            img_size=case.size,
            patch_size=PATCH,
            gaug=not is_plain,
            out_type='cls_token' if is_plain else 'raw',
            attention_backend=None if is_plain else case.variant,
            kernel=kernel,
        )
        self.neck = nn.Identity() if is_plain else PatchRepresentationRefinement(case.num_heads)
        self.head = nn.Linear(case.embed_dim, _NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(images))[-1])


def prepare(case: Case, compiled: bool = False) -> Callable[[], Any]:
    """Build the call that is timed: the forward pass of a batch, or one training step.

    Args:
        case: what is measured.
        compiled: by ``torch.compile``; the first call compiles.
    """
    with torch.device(case.device):
        model: nn.Module = Classifier(case)
        images = torch.randn(case.batch_size, 3, case.size, case.size)
    if compiled:
        model.compile(dynamic=False)
    return make_call(model, images, case.mode)


def make_call(model: nn.Module, images: Tensor, mode: str) -> Callable[[], Any]:
    """The forward pass of a classifier, or (``mode='training'``) one step with AdamW."""
    if mode == 'forward':
        return partial(_forward, model.eval(), images)
    labels = torch.randint(_NUM_CLASSES, (len(images),), device=images.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return partial(_update, model.train(), optimizer, images, labels)


@torch.inference_mode()
def _forward(model: nn.Module, images: Tensor) -> None:
    with _autocast(images):
        model(images)


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    optimizer.zero_grad()
    with _autocast(images):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()


def _autocast(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda)
