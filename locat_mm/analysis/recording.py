"""Records what the attention layers of a vision transformer do with one image."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..layers.attach import find_patch_embed
from ..layers.image_grid import read_grid
from ..models import PatchRepresentationRefinement
from .measures import attention_weights, cls_similarity, refinement_weights
from .structure import AttentionLayer, class_tokens, find_backbone, find_layers, window_patches

__all__ = ['LayerRecord', 'Recorder']

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


@dataclass(eq=False)
class LayerRecord:
    """One attention layer on one image.

    Attributes:
        name: of the attention layer in the backbone.
        grid_size: patches along (rows, columns) of this layer, (H, W).
        attention: weights, mean over the heads, ``[windows, N, N]``; global attention is one
            window of all tokens.
        patches: which patch a token is, row-major, ``[windows, N]``; -1 for prefix tokens and
            padding.
        variance: of the patches' Gaussians, rows and columns, mean over the heads,
            ``[H, W, 2]`` in squared patches of this layer: Σ of the paper; None without GAug.
        alpha: their strength, mean over the heads, ``[H, W]`` in logits; None without GAug.
        similarity: of the patches to [CLS] behind the layer's block, ``[H, W]``; None without
            class token.
    """

    name: str
    grid_size: tuple[int, int]
    attention: Tensor
    patches: Tensor
    variance: Tensor | None = None
    alpha: Tensor | None = None
    similarity: Tensor | None = None

    @property
    def sigma(self) -> Tensor | None:
        """Standard deviations along rows and columns, ``[H, W, 2]``, in patches of this layer."""
        return None if self.variance is None else self.variance.sqrt()

    def attention_of(self, row: int, column: int) -> Tensor:
        """What a patch attends to: ``[H, W]``, NaN where it cannot (outside of its window).

        What is missing to a sum of 1 went to prefix tokens or padding.
        """
        height, width = self.grid_size
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f'patch ({row}, {column}) is outside of a grid of {height}×{width}')
        window, token = (self.patches == row * width + column).nonzero()[0].tolist()
        return self._to_map(self.attention[window, token], self.patches[window])

    def _to_map(self, values: Tensor, patches: Tensor) -> Tensor:
        """``[..., D...]`` of tokens to ``[H, W, D...]``."""
        height, width = self.grid_size
        inside = patches >= 0
        flat = values.new_full((height * width, *values.shape[patches.ndim :]), math.nan)
        flat[patches[inside]] = values[inside]
        return flat.unflatten(0, (height, width))


@dataclass
class _Seen:
    """What hooks bring in of one layer."""

    grid_size: tuple[int, int] | None = None
    attention: Tensor | None = None
    gaussian: tuple[Tensor, Tensor] | None = None
    tokens: Tensor | None = None


class _OpenAttention(TorchFunctionMode):
    """Hands on the weights of any attention that torch computes, fused or step by step."""

    def __init__(self, take: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.take = take

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self.take(_weights_of_sdpa(*args, **kwargs))
        elif func is F.multi_head_attention_forward and result[1] is not None:
            self.take(result[1][:, None])  # the mean over the heads
        elif func in _SOFTMAX:
            self.take(result)
        return result


def _weights_of_sdpa(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_
) -> Tensor:
    assert not is_causal, 'no backbone for images has an order'
    return attention_weights(query, key, attn_mask, scale)


class Recorder:
    """Context in which one forward pass of a model on one image is recorded.

    The attention weights are those of the layer itself: what a fused kernel does not give is
    computed from its queries, keys and biases. They take N² floats a layer.

    Args:
        model: a classifier, a segmentor or a backbone, in eval mode; its attention layers are of
            the kinds that :func:`locat_mm.attach` knows, with GAug or without.

    Raises:
        ValueError: if it has none.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.backbone = find_backbone(model)
        self.layers = find_layers(self.backbone)
        _, self.patch_embed = find_patch_embed(self.backbone)
        self.num_class_tokens, self.num_prefix_tokens = class_tokens(self.backbone)
        necks = [m for m in model.modules() if isinstance(m, PatchRepresentationRefinement)]
        self.neck = necks[-1] if necks else None
        #: Patches along (rows, columns) behind the patch embedding.
        self.grid_size: tuple[int, int] | None = None
        self._seen = {layer.name: _Seen() for layer in self.layers}
        self._refined: Tensor | None = None
        self._current: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> 'Recorder':
        hook = self._hook
        hook(self.patch_embed.register_forward_hook(self._take_grid))
        for layer in self.layers:
            seen = self._seen[layer.name]
            if layer.has_gaug:
                hook(layer.attn.gaug.register_forward_hook(_setter(seen, 'gaussian')))
                # The one that leaves the weights to scaled_dot_product_attention.
                self._stack.callback(setattr, layer.attn, 'backend', layer.attn.backend)
                layer.attn.backend = 'eager'
            if layer.is_windowed:
                hook(layer.parent.register_forward_pre_hook(_window_grid(seen), with_kwargs=True))
            if layer.block is not None and self.num_class_tokens:
                hook(layer.block.register_forward_hook(_setter(seen, 'tokens')))
            hook(layer.attn.register_forward_pre_hook(self._enter_layer(layer)))
            hook(layer.attn.register_forward_hook(self._leave_layer))
        if self.neck is not None:
            hook(self.neck.register_forward_pre_hook(self._take_refined))
        self._stack.enter_context(_OpenAttention(self._take_attention))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def records(self) -> list[LayerRecord]:
        """One record per attention layer that has run, in the order of the layers.

        Raises:
            ValueError: if the model has not run.
        """
        if self.grid_size is None:
            raise ValueError(f'{type(self.model).__name__} has not run inside of the recorder')
        ran = [layer for layer in self.layers if self._seen[layer.name].attention is not None]
        return [self._record(layer, self._seen[layer.name]) for layer in ran]

    def refinement(self) -> Tensor | None:
        """PRR's weights for what the head reads, mean over the heads: ``[N]``, summing to 1.

        The mean over the class tokens (``pool='cls_token'``, ``'prefix'``) or over the patches
        (``'avg'`` and None). None if the model has no PRR.
        """
        if self.neck is None or self._refined is None:
            return None
        weights = refinement_weights(self._refined, self.neck.num_heads)[0].mean(0).cpu()  # [N, N]
        if self.neck.pool == 'cls_token':
            return weights[0]
        if self.neck.pool == 'prefix':
            return weights[: self.neck.num_prefix_tokens].mean(0)
        return weights[self.neck.num_prefix_tokens :].mean(0)

    def _record(self, layer: AttentionLayer, seen: _Seen) -> LayerRecord:
        assert self.grid_size is not None and seen.attention is not None
        height, width = seen.grid_size or self.grid_size
        num_tokens = seen.attention.shape[-1]
        if layer.is_windowed:
            patches = window_patches(layer, (height, width)).cpu()
        else:
            num_prefix = num_tokens - height * width
            if num_prefix < 0:
                raise ValueError(
                    f'{layer.name} attends over {num_tokens} tokens and the image has '
                    f'{height}×{width} patches: none may be dropped or merged'
                )
            patches = torch.arange(-num_prefix, height * width).clamp(min=-1)[None]
        record = LayerRecord(layer.name, (height, width), seen.attention, patches)
        if seen.gaussian is not None:
            # Windows have no prefix tokens; patches alone have Gaussians.
            where = patches if layer.is_windowed else patches[patches >= 0][None]
            variance, alpha = (x.mean(1).cpu() for x in seen.gaussian)
            record.variance = record._to_map(variance, where)
            record.alpha = record._to_map(alpha, where)
        if seen.tokens is not None:
            similarity = cls_similarity(
                seen.tokens[0], self.num_prefix_tokens, self.num_class_tokens
            )
            record.similarity = similarity.unflatten(0, (height, width)).cpu()
        return record

    def _hook(self, handle: Any) -> None:
        self._stack.callback(handle.remove)

    def _take_grid(self, patch_embed: nn.Module, args: tuple, output: Any) -> None:
        if self.grid_size is not None:
            raise ValueError(
                'the model runs several times for one image: for sliding windows add '
                '--cfg-options model.test_cfg.mode=whole'
            )
        height, width = read_grid(patch_embed, args, output)
        self.grid_size = (int(height), int(width))

    def _take_refined(self, _: nn.Module, args: tuple) -> None:
        tokens = args[0][-1]
        self._refined = tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens

    def _enter_layer(self, layer: AttentionLayer) -> Callable:
        def enter(attn: nn.Module, args: tuple) -> None:
            self._current = layer.name

        return enter

    def _leave_layer(self, attn: nn.Module, args: tuple, output: Any) -> None:
        assert self._current is not None
        if self._seen[self._current].attention is None:
            raise ValueError(f'{self._current} computes its attention where it cannot be seen')
        self._current = None

    def _take_attention(self, weights: Tensor) -> None:
        if self._current is None or weights.shape[-1] != weights.shape[-2]:
            return
        attn = self.backbone.get_submodule(self._current)
        if weights.ndim == 3:
            weights = weights.unflatten(0, (-1, attn.num_heads))  # type: ignore[arg-type]
        self._seen[self._current].attention = weights.mean(1).float().cpu()


def _setter(seen: _Seen, name: str) -> Callable:
    """A forward hook that keeps the output."""

    def hook(module: nn.Module, args: tuple, output: Any) -> None:
        setattr(seen, name, output)

    return hook


def _window_grid(seen: _Seen) -> Callable:
    """A pre-hook of what cuts windows: of a map ``[B, H, W, C]``, or of tokens and a size."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if isinstance(args[0], Tensor) and args[0].ndim == 4:
            height, width = args[0].shape[1:3]
        else:
            height, width = args[1] if len(args) > 1 else kwargs['hw_shape']
        seen.grid_size = (int(height), int(width))

    return hook
