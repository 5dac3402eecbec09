"""What GAug learns, in numbers: mean variance, strength and correlation of every layer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, cat, nn

from ..layers import FixedGaussian, GaussianAugment

__all__ = ['record_gaug_statistics']


@contextmanager
def record_gaug_statistics(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record mean variance and strength of every GAug module while the context is open.

    Args:
        model: its forward passes inside the context are recorded.

    Yields:
        for every :class:`~locat_mm.layers.GaussianAugment` and
        :class:`~locat_mm.layers.FixedGaussian` in the model, by name: one tensor ``[3]`` per
        forward pass. It holds the mean variance along rows and along columns (squared patches)
        and the mean strength alpha (logits), over images, heads and patches. Rotated kernels have
        ``[4]``: also the mean size of the correlation.
    """
    recorded: dict[str, list[Tensor]] = {}
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, (GaussianAugment, FixedGaussian)):
                recorded[name] = []
                handle = module.register_forward_hook(_append_means_to(recorded[name]))
                hooks.callback(handle.remove)
        yield recorded


def _append_means_to(means: list[Tensor]):
    def hook(gaug: nn.Module, args: tuple, output: tuple[Tensor, ...]) -> None:
        variance, alpha, *correlation = output
        rest = [x[..., None] for x in (alpha, *(rho.abs() for rho in correlation))]
        together = cat([variance, *rest], dim=-1)  # [B, heads, H·W, 3 or 4]
        means.append(together.detach().float().flatten(0, 2).mean(0))

    return hook
