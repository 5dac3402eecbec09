"""Records what the attention layers of a vision transformer compute for one image."""

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
        attention: weights, mean over the heads, ``[windows, N, N]``. Global attention has one
            window with all tokens.
        patches: patch number of each token, row-major, ``[windows, N]``; -1 for prefix tokens and
            padding.
        variance: of the patches' Gaussians, rows and columns, mean over the heads,
            ``[H, W, 2]`` in squared patches of this layer: Σ of the paper; None without GAug.
        alpha: their strength, mean over the heads, ``[H, W]`` in logits; None without GAug.
        covariance: of rotated Gaussians between rows and columns, mean over the heads, ``[H, W]``
            in squared patches: the rest of Σ; None if they are aligned with the axes.
        similarity: of the patches to [CLS] behind the layer's block, ``[H, W]``; None without
            class token.
        head_attention: weights of every head, ``[heads, windows, N, N]``; None if they were not
            recorded. See ``head_limit`` of :class:`Recorder`.
        head_variance, head_alpha: of every head, ``[heads, H, W, 2]`` and ``[heads, H, W]``;
            recorded with ``head_attention``.
        head_correlation: of rotated Gaussians of every head, ``[heads, H, W]``; likewise.
        features: the patches' tokens behind the layer's block, ``[H, W, C]``; None unless they
            were recorded.
    """

    name: str
    grid_size: tuple[int, int]
    attention: Tensor
    patches: Tensor
    variance: Tensor | None = None
    alpha: Tensor | None = None
    covariance: Tensor | None = None
    similarity: Tensor | None = None
    head_attention: Tensor | None = None
    head_variance: Tensor | None = None
    head_alpha: Tensor | None = None
    head_correlation: Tensor | None = None
    features: Tensor | None = None

    @property
    def sigma(self) -> Tensor | None:
        """Standard deviations along rows and columns, ``[H, W, 2]``, in patches of this layer."""
        return None if self.variance is None else self.variance.sqrt()

    @property
    def correlation(self) -> Tensor | None:
        """Of rotated Gaussians between rows and columns, ``[H, W]``, within (-1, 1)."""
        if self.covariance is None or self.variance is None:
            return None
        return self.covariance / self.variance.prod(-1).sqrt()

    @property
    def angle(self) -> Tensor | None:
        """From the columns' direction to the long axis of rotated Gaussians, ``[H, W]`` in degrees.

        Within -90 to 90; positive toward the lower right, in units of patches.
        """
        if self.covariance is None or self.variance is None:
            return None
        rows, columns = self.variance.unbind(-1)
        return 0.5 * torch.atan2(2 * self.covariance, columns - rows).rad2deg()

    def attention_of(self, row: int, column: int) -> Tensor:
        """Attention weights of one patch, ``[H, W]``; NaN for patches outside of its window.

        The rest of the sum of 1 is on prefix tokens or padding.

        Raises:
            ValueError: if there is no such patch.
        """
        height, width = self.grid_size
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f'patch ({row}, {column}) is outside of a grid of {height}×{width}')
        window, token = (self.patches == row * width + column).nonzero()[0].tolist()
        return _to_map(self.attention[window, token], self.patches[window], self.grid_size)


def _to_map(values: Tensor, patches: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Values ``[..., D...]`` of tokens to ``[H, W, D...]``; ``patches`` are the patch numbers."""
    inside = patches >= 0
    flat = values.new_full((math.prod(grid_size), *values.shape[patches.ndim :]), math.nan)
    flat[patches[inside]] = values[inside]
    return flat.unflatten(0, grid_size)


@dataclass
class _Capture:
    """What the hooks get from one layer."""

    layer: AttentionLayer
    head_limit: int = 0
    grid_size: tuple[int, int] | None = None
    attention: Tensor | None = None
    head_attention: Tensor | None = None
    gaussian: tuple[Tensor, ...] | None = None
    tokens: Tensor | None = None

    def keep_gaussian(self, gaug: nn.Module, args: tuple, output: tuple[Tensor, ...]) -> None:
        self.gaussian = output

    def keep_tokens(self, block: nn.Module, args: tuple, output: Tensor) -> None:
        self.tokens = output

    def keep_window_grid(self, parent: nn.Module, args: tuple, kwargs: dict) -> None:
        """Read the grid off the input: a map ``[B, H, W, C]``, or tokens and their grid."""
        if isinstance(args[0], Tensor) and args[0].ndim == 4:
            height, width = args[0].shape[1:3]
        else:
            height, width = args[1] if len(args) > 1 else kwargs['hw_shape']
        self.grid_size = (int(height), int(width))

    def keep_attention(self, weights: Tensor) -> None:
        """Keep weights ``[B, heads, N, N]`` or ``[B·heads, N, N]``; other tensors are ignored."""
        if weights.shape[-1] != weights.shape[-2]:
            return
        if weights.ndim == 3:
            weights = weights.unflatten(0, (-1, self.layer.attn.num_heads))
        self.attention = weights.mean(1).float().cpu()
        is_kept = weights.shape[1] > 1 and weights.numel() <= self.head_limit
        self.head_attention = weights.transpose(0, 1).float().cpu() if is_kept else None


class _AttentionWeights(TorchFunctionMode):
    """Passes the weights of all attention that torch computes to ``keep``, fused or not."""

    def __init__(self, keep: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.keep = keep

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self.keep(_weights_of_sdpa(*args, **kwargs))
        elif func is F.multi_head_attention_forward and result[1] is not None:
            self.keep(result[1][:, None])  # the mean over the heads
        elif func in _SOFTMAX:
            self.keep(result)
        return result


def _weights_of_sdpa(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_
) -> Tensor:
    assert not is_causal, 'backbones for images have no causal attention'
    return attention_weights(query, key, attn_mask, scale)


class Recorder:
    """Context that records one forward pass of a model on one image.

    The attention weights are the layer's own. A fused kernel does not return them, so they are
    computed from its queries, keys and biases. They take N² floats per layer.

    Args:
        model: a classifier, a segmentor or a backbone, in eval mode. Its attention layers are of
            the kinds that :func:`locat_mm.attach` supports, with GAug or without.
        head_limit: the heads of a layer are recorded too if their weights are at most so many
            numbers (heads · windows · N²); 0: never.
        features: record the tokens behind every block.

    Attributes:
        grid_size: patches along (rows, columns) behind the patch embedding; None before the pass.

    Raises:
        ValueError: if it has no such layer.
    """

    def __init__(self, model: nn.Module, head_limit: int = 0, features: bool = False) -> None:
        self.model = model
        self.features = features
        backbone = find_backbone(model)
        self._captures = [_Capture(layer, head_limit) for layer in find_layers(backbone)]
        _, self.patch_embed = find_patch_embed(backbone)
        self.num_class_tokens, self.num_prefix_tokens = class_tokens(backbone)
        necks = [m for m in model.modules() if isinstance(m, PatchRepresentationRefinement)]
        self.neck = necks[-1] if necks else None
        self.grid_size: tuple[int, int] | None = None
        self._neck_input: Tensor | None = None
        self._current: _Capture | None = None  # of the attention layer that is running
        self._stack = ExitStack()

    def __enter__(self) -> 'Recorder':
        handles = [self.patch_embed.register_forward_hook(self._keep_grid)]
        if self.neck is not None:
            handles.append(self.neck.register_forward_pre_hook(self._keep_neck_input))
        for capture in self._captures:
            layer, attn = capture.layer, capture.layer.attn
            if layer.has_gaug:
                handles.append(attn.gaug.register_forward_hook(capture.keep_gaussian))
                # The eager backend calls scaled_dot_product_attention, which is recorded.
                self._stack.callback(setattr, attn, 'backend', attn.backend)
                attn.backend = 'eager'
            if layer.is_windowed:
                hook = capture.keep_window_grid
                handles.append(layer.parent.register_forward_pre_hook(hook, with_kwargs=True))
            if layer.block is not None and (self.num_class_tokens or self.features):
                handles.append(layer.block.register_forward_hook(capture.keep_tokens))
            handles.append(attn.register_forward_pre_hook(self._enter_layer(capture)))
            handles.append(attn.register_forward_hook(self._leave_layer))
        for handle in handles:
            self._stack.callback(handle.remove)
        self._stack.enter_context(_AttentionWeights(self._keep_attention))
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
        ran = [capture for capture in self._captures if capture.attention is not None]
        return [self._record(capture, capture.grid_size or self.grid_size) for capture in ran]

    def refinement(self) -> Tensor | None:
        """PRR's weights for the head's input, mean over the heads: ``[N]``, with a sum of 1.

        The mean over the class tokens (``pool='cls_token'``, ``'prefix'``) or over the patches
        (``'avg'`` and None). None if the model has no PRR.
        """
        if self.neck is None or self._neck_input is None:
            return None
        weights = refinement_weights(self._neck_input, self.neck.num_heads)[0].mean(0).cpu()
        if self.neck.pool == 'cls_token':
            return weights[0]
        if self.neck.pool == 'prefix':
            return weights[: self.neck.num_prefix_tokens].mean(0)
        return weights[self.neck.num_prefix_tokens :].mean(0)

    def _record(self, capture: _Capture, grid_size: tuple[int, int]) -> LayerRecord:
        assert capture.attention is not None
        layer = capture.layer
        num_tokens, num_patches = capture.attention.shape[-1], math.prod(grid_size)
        if layer.is_windowed:
            patches = window_patches(layer, grid_size).cpu()
        elif num_tokens >= num_patches:
            patches = torch.arange(num_patches - num_tokens, num_patches).clamp(min=-1)[None]
        else:
            raise ValueError(
                f'{layer.name} attends over {num_tokens} tokens and the image has '
                f'{grid_size[0]}×{grid_size[1]} patches: none may be dropped or merged'
            )
        record = LayerRecord(layer.name, grid_size, capture.attention, patches)
        if capture.gaussian is not None:
            # GAug returns values of patches only, without prefix tokens; windows have none.
            where = patches if layer.is_windowed else patches[patches >= 0][None]
            variance, alpha, *correlation = capture.gaussian
            record.variance = _to_map(variance.mean(1).cpu(), where, grid_size)
            record.alpha = _to_map(alpha.mean(1).cpu(), where, grid_size)
            if correlation:
                covariance = correlation[0] * variance.prod(-1).sqrt()
                record.covariance = _to_map(covariance.mean(1).cpu(), where, grid_size)
            if capture.head_attention is not None:
                per_head = [x.transpose(0, 1).cpu() for x in capture.gaussian]
                maps = [torch.stack([_to_map(x, where, grid_size) for x in y]) for y in per_head]
                record.head_variance, record.head_alpha = maps[:2]
                record.head_correlation = maps[2] if correlation else None
        record.head_attention = capture.head_attention
        if capture.tokens is not None and self.features:
            # [1, N, C] with prefix tokens in front, or a map [1, H, W, C]
            tokens = capture.tokens[0].flatten(0, -2)[-num_patches:]
            record.features = tokens.float().cpu().unflatten(0, grid_size)
        if capture.tokens is not None and self.num_class_tokens:
            similarity = cls_similarity(
                capture.tokens[0], self.num_prefix_tokens, self.num_class_tokens
            )
            record.similarity = similarity.unflatten(0, grid_size).cpu()
        return record

    def _keep_grid(self, patch_embed: nn.Module, args: tuple, output: Any) -> None:
        if self.grid_size is not None:
            raise ValueError(
                'the model runs several times for one image: for sliding windows add '
                '--cfg-options model.test_cfg.mode=whole'
            )
        height, width = read_grid(patch_embed, args, output)
        self.grid_size = (int(height), int(width))

    def _keep_neck_input(self, neck: nn.Module, args: tuple) -> None:
        tokens = args[0][-1]
        self._neck_input = tokens.flatten(2).transpose(1, 2) if tokens.ndim == 4 else tokens

    def _keep_attention(self, weights: Tensor) -> None:
        if self._current is not None:
            self._current.keep_attention(weights)

    def _enter_layer(self, capture: _Capture) -> Callable:
        def enter(attn: nn.Module, args: tuple) -> None:
            self._current = capture

        return enter

    def _leave_layer(self, attn: nn.Module, args: tuple, output: Any) -> None:
        assert self._current is not None
        if self._current.attention is None:
            raise ValueError(
                f'{self._current.layer.name} computes its attention where it cannot be seen'
            )
        self._current = None
