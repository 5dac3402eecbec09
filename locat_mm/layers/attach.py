"""GAug in any vision transformer: :func:`attach` adds it in place, :func:`detach` removes it."""

from collections.abc import Sequence
from typing import Any

from timm.layers import to_2tuple
from torch import nn

from ..helpers import check_choice
from ..ops.gaussian_attention import get_backend
from .fixed_gaussian import Constants, chosen_layers, constants_of
from .frozen_host import freeze_host, train_gaug, unfreeze_host
from .gaussian_augment import STARTS, check_alpha_scale, check_kernel
from .hosts.search import find_attention, gaug_class_of
from .image_grid import ImageGrid, can_tell_grid
from .mixins import GAugMixin

__all__ = ['attach', 'count_prefix_tokens', 'detach', 'find_patch_embed']


def attach(
    model: nn.Module,
    gaug: bool = True,
    start: str = 'identity',
    *,
    grid_size: tuple[int, int] | None = None,
    num_prefix_tokens: int | None = None,
    attention_backend: str | None = None,
    kernel: str = 'axis',
    layers: int | Sequence[int] | slice | None = None,
    variance: float | Sequence[float] | None = None,
    alpha: float | Sequence[float] | None = None,
    units: str = 'patches',
    alpha_scale: float = 1.0,
    train: str = 'all',
) -> nn.Module:
    """Give the attention layers of a vision transformer a Gaussian bias, in place.

    The host's keys, forward, freezing and initialisation do not change; only ``....gaug.*`` is
    new. The grid of each image is read from the host's patch embedding while it runs, so all image
    sizes that the host takes work. Supported: see :data:`locat_mm.layers.SUPPORTED`.

    Args:
        model: a backbone of timm, mmpretrain or mmseg, or a model around one.
        gaug: False leaves the model as it is.
        start: ``'identity'`` for a host that is trained: its outputs do not change at first,
            because alpha has a learned gain that starts near 0. ``'paper'`` starts with the
            paper's bias, for training from the start and for checkpoints of such training.
            ``'fixed'`` gives every query the Gaussian of ``variance`` and ``alpha``, without
            training: no parameters, and the host's state dict stays as it is.
        grid_size: patches along (rows, columns) that GAug is built for, which limit the variance.
            By default the host's; a host without one needs it.
        num_prefix_tokens: tokens without coordinates in front of the patches. By default the
            host's.
        attention_backend: see :func:`locat_mm.ops.gaussian_attention`.
        kernel: ``'axis'`` or ``'rotated'``, see :class:`locat_mm.layers.GaussianAugment`.
        layers: an index, indices or a slice of the attention layers that get a Gaussian, in the
            order of the model; negative ones count from the end. None: all.
        variance: for ``'fixed'``: squared patches, one number or one per chosen layer.
        alpha: for ``'fixed'``: strength in logits, one number or one per chosen layer.
        units: for ``'fixed'``: ``'patches'`` keeps the variance on other grids than
            ``grid_size``; ``'image'`` scales it with the squared ratio of the shorter sides. See
            :class:`locat_mm.layers.FixedGaussian`.
        alpha_scale: factor of a trained GAug's strength, for decoding.
        train: ``'all'`` changes no freezing. ``'gaug'`` freezes the host, which also stays in
            eval mode, and trains GAug alone; the log says how many parameters that are.

    Returns:
        the model.

    Raises:
        TypeError: if an attention layer is of a kind that is not supported or has GAug already,
            there is none, or ``layers`` holds no indices.
        ValueError: if ``start``, ``train``, the kernel or the backend is unknown, a layer is a
            variant that is not supported, the grid or the prefix tokens cannot be told, a layer
            or a constant is out of range, or two arguments exclude each other.
    """
    check_choice('start', start, (*STARTS, 'fixed'))
    check_choice('train', train, ('all', 'gaug'))
    check_alpha_scale(alpha_scale)
    check_kernel(kernel, gaug)
    _check_combination(start, variance, alpha, units, alpha_scale, train, kernel)
    if not gaug:
        for name, given in (
            ('attention_backend', attention_backend is not None),
            ('alpha_scale', alpha_scale != 1),
            ('layers', layers is not None),
            ("start='fixed'", start == 'fixed'),
            ("train='gaug'", train == 'gaug'),
        ):
            if given:
                raise ValueError(f'{name} needs gaug=True')
        return model
    if attention_backend is not None:
        get_backend(attention_backend)
    found = [(attn, gaug_class_of(type(attn))) for _, attn in find_attention(model)]
    chosen = [found[index] for index in chosen_layers(layers, len(found))]
    constants: list[Constants] | list[None] = [None] * len(chosen)
    if start == 'fixed':
        constants = constants_of(variance, alpha, units, len(chosen))
    for attn, kind in chosen:
        kind.check(attn)
    image_grid = None
    if any(kind.fixed_grid(attn) is None for attn, kind in chosen):
        owner, patch_embed = find_patch_embed(model)
        grid_size = _built_grid(owner, patch_embed) if grid_size is None else grid_size
        if min(grid_size) < 1:
            raise ValueError(f'grid_size must be at least 1×1, got {tuple(grid_size)}')
        if num_prefix_tokens is None:
            num_prefix_tokens = count_prefix_tokens(owner)
        image_grid = ImageGrid()
        patch_embed.register_forward_hook(image_grid)
    elif grid_size is not None or num_prefix_tokens is not None:
        raise ValueError(
            f'the attention of {type(model).__name__} is in windows, of a size of their own: '
            f'{grid_size=} and {num_prefix_tokens=} are not for it'
        )
    if train == 'gaug':
        freeze_host(model)
    for (attn, kind), of_layer in zip(chosen, constants, strict=True):
        window = kind.fixed_grid(attn)
        where = (window, 0) if window else (grid_size, num_prefix_tokens)
        grid = None if window else image_grid
        layer = kind.convert(attn, *where, attention_backend, start, grid, of_layer, kernel)
        layer.attached = True
        if alpha_scale != 1:
            layer.gaug.alpha_scale = alpha_scale
    if train == 'gaug':
        train_gaug(model)
    return model


def _check_combination(
    start: str,
    variance: Any,
    alpha: Any,
    units: str,
    alpha_scale: float,
    train: str,
    kernel: str,
) -> None:
    if start == 'fixed':
        if kernel != 'axis':
            raise ValueError(f"{kernel=} is learned; start='fixed' has no correlation")
        if alpha_scale != 1:
            raise ValueError(f"{alpha_scale=} is for a trained GAug; start='fixed' states alpha")
        if train == 'gaug':
            raise ValueError("train='gaug' and start='fixed': a constant Gaussian has no parameter")
        return
    for name, value in (('variance', variance), ('alpha', alpha)):
        if value is not None:
            raise ValueError(f"{name}={value} needs start='fixed', got {start=}")
    if units != 'patches':
        raise ValueError(f"{units=} needs start='fixed', got {start=}")


def detach(model: nn.Module) -> nn.Module:
    """Undo :func:`attach`: the host becomes what it was, with the weights that it has now.

    Args:
        model: what :func:`attach` was given.

    Returns:
        the model.

    Raises:
        TypeError: if it has no GAug, or was built with it.
    """
    layers = [m for m in model.modules() if isinstance(m, GAugMixin)]
    if not layers:
        raise TypeError(f'{type(model).__name__} has no GAug that could be detached')
    if any(not attn.attached for attn in layers):
        raise TypeError(f'{type(model).__name__} is built with GAug; build it with gaug=False')
    unfreeze_host(model)
    for attn in layers:
        attn.revert()
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, ImageGrid):
                del module._forward_hooks[key]
    return model


def find_patch_embed(model: nn.Module) -> tuple[Any, Any]:
    """The module that owns the patch embedding, and the patch embedding itself.

    Raises:
        ValueError: if the model has none, or several.
    """
    names = [name for name, _ in model.named_modules() if name.rpartition('.')[2] == 'patch_embed']
    if len(names) != 1:
        found = f': {", ".join(names)}. Attach to the backbone itself' if names else ''
        raise ValueError(
            f'GAug reads the grid from the one module named patch_embed of a vision transformer; '
            f'{type(model).__name__} has {len(names)}{found}'
        )
    owner = model.get_submodule(names[0].rpartition('.')[0])
    patch_embed = model.get_submodule(names[0])
    if not can_tell_grid(patch_embed):
        raise ValueError(
            f'{names[0]} is a {type(patch_embed).__name__}, which does not tell the grid of its '
            "patches as timm's and OpenMMLab's PatchEmbed do"
        )
    return owner, patch_embed


def _built_grid(owner: Any, patch_embed: Any) -> tuple[int, int]:
    for grid_size in (
        getattr(patch_embed, 'grid_size', None),  # timm
        getattr(patch_embed, 'init_out_size', None),  # mmpretrain
    ):
        if grid_size is not None:
            height, width = grid_size
            return height, width
    if hasattr(owner, 'img_size') and hasattr(owner, 'patch_size'):  # mmseg
        height, width = to_2tuple(owner.img_size)
        patch_height, patch_width = to_2tuple(owner.patch_size)
        return height // patch_height, width // patch_width
    raise ValueError(
        f'{type(owner).__name__} is built for no image size; give the grid_size that GAug is for'
    )


def count_prefix_tokens(owner: Any) -> int:
    """Tokens in front of the patches, from the attributes of timm, mmpretrain or mmseg."""
    for name in ('num_prefix_tokens', 'num_extra_tokens'):  # timm, mmpretrain
        if hasattr(owner, name):
            return getattr(owner, name)
    if hasattr(owner, 'cls_token'):  # mmseg
        return int(owner.cls_token is not None and getattr(owner, 'with_cls_token', True))
    raise ValueError(
        f'{type(owner).__name__} does not say how many tokens stand in front of its patches; '
        'give num_prefix_tokens'
    )
