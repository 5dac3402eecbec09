"""Find the first tensor that is not finite in a training iteration."""

import math
from collections.abc import Iterable, Mapping, Set
from functools import partial
from typing import Any

from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from ...helpers import innermost, listed

__all__ = ['bad_names', 'bad_state', 'find_source']


def find_source(model: nn.Module, data_batch: Any, optim_wrapper: Any) -> tuple[int, str]:
    """Run a batch forward and backward, without a step, and find the first non-finite tensor.

    Args:
        model: with the weights of that iteration, possibly wrapped.
        data_batch: from the data loader.
        optim_wrapper: its context (mixed precision) is used.

    Returns:
        the stage of the iteration, as a number that grows with time, and the tensor's name;
        ``''`` if everything is finite.
    """
    if isinstance(optim_wrapper, OptimWrapperDict):
        return 0, 'not searched for, because the model steps several optimizers'
    inputs, state = _bad_inputs(data_batch), bad_state(model)
    model = innermost(model)
    model.zero_grad(set_to_none=True)
    watch = _FirstNonFinite(model)
    try:  # also if the source is known already: sharded processes wait for each other
        # The class's method, because mmengine's compile=True replaces the instance's.
        losses = type(model).train_step(model, data_batch, _Rehearsal(optim_wrapper))  # type: ignore
    finally:
        watch.remove()
    if inputs:
        return 0, f'the input, {listed(inputs)}'
    if state:
        return 1, f'weights or buffers of the model, {listed(state)}'
    if watch.first is not None:
        return 2, watch.first
    if bad := [name for name, value in losses.items() if 'loss' in name and _is_bad(value.abs())]:
        return 3, f'the loss ({listed(bad)}), of finite outputs of all modules'
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    bad = [name for name, gradient in gradients.items() if _is_bad(gradient.abs())]
    if watch.first_gradient is not None or bad:
        at = watch.first_gradient or 'at no output of a module, but of parameters alone'
        return 4, f'a gradient under a finite loss, {at}. Gradients of parameters: {listed(bad)}'
    return 5, ''


class _Rehearsal:
    """Replaces an optimizer wrapper: computes gradients and takes no step."""

    def __init__(self, optim_wrapper: Any) -> None:
        self.optim_context = optim_wrapper.optim_context

    def update_params(self, loss: Tensor) -> None:
        loss.backward()


class _FirstNonFinite:
    """Records the first non-finite tensor between modules, in the forward and backward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.first: str | None = None
        self.first_gradient: str | None = None
        self._last_finite = 'the loss'
        self._modules = dict(model.named_modules())
        self._handles: list[Any] = []
        for name, module in self._modules.items():
            enter, leave = partial(self._enter, name), partial(self._leave, name)
            self._handles += [
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave),
            ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _named(self, name: str) -> str:
        return f'{name or "the model"} ({type(self._modules[name]).__name__})'

    def _enter(self, name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.first is None and any(map(_is_bad, tree_leaves((args, kwargs)))):
            owner = name.rpartition('.')[0]
            while isinstance(self._modules[owner], nn.ModuleList | nn.Sequential | nn.ModuleDict):
                owner = owner.rpartition('.')[0]
            self.first = f'what the forward pass of {self._named(owner)} hands to {name}'

    def _leave(self, name: str, module: nn.Module, args: tuple, output: Any) -> None:
        for value in tree_leaves(output):
            if self.first is None and _is_bad(value):
                self.first = f'the output of {self._named(name)}'
            if isinstance(value, Tensor) and value.requires_grad:
                value.register_hook(partial(self._on_gradient, name))

    def _on_gradient(self, name: str, gradient: Tensor) -> None:
        if self.first_gradient is None:
            at = f'the output of {self._named(name)}'
            if _is_bad(gradient.abs()):
                self.first_gradient = f'with respect to {at}; finite yet at {self._last_finite}'
            self._last_finite = at


def _is_bad(value: Any) -> bool:
    """Whether a tensor holds NaN or +infinity; attention masks contain -infinity."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    value = value.detach()
    if isinstance(value, DTensor):
        value = value.to_local()
    return value.numel() > 0 and not bool(value.amax() < math.inf)


def bad_names(state: Mapping[str, Any], buffers: Set[str] = frozenset()) -> list[str]:
    """Names of non-finite tensors; a buffer may hold infinity, as in quantization observers."""
    return [
        name
        for name, value in state.items()
        if _is_bad(value) and (name not in buffers or bool(value.isnan().any()))
    ]


def bad_state(model: nn.Module) -> list[str]:
    """Names of weights and buffers that are not finite."""
    model = innermost(model)
    buffers = dict(model.named_buffers())
    return bad_names({**dict(model.named_parameters()), **buffers}, buffers.keys())


def _bad_inputs(data_batch: Any) -> list[str]:
    """Positions and files of images that are not finite."""
    if not isinstance(data_batch, Mapping):
        return [f'tensor {i}' for i, x in enumerate(tree_leaves(data_batch)) if _is_bad(x)]
    samples = data_batch.get('data_samples') or ()
    images: Any = data_batch.get('inputs', ())
    # Several views of each image come as a list of batches.
    is_views = isinstance(images, (list, tuple)) and any(getattr(x, 'ndim', 0) == 4 for x in images)
    views: Iterable = images if is_views else [images]
    bad = sorted(
        {
            i
            for view in views
            for i, x in enumerate(view)
            if isinstance(x, Tensor) and not bool(x.isfinite().all())
        }
    )
    files = {i: getattr(sample, 'img_path', None) for i, sample in enumerate(samples)}
    return [f'image {i} of the batch' + (f' ({files[i]})' if files.get(i) else '') for i in bad]
