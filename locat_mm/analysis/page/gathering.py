"""The content of a page: what was recorded of some images in one model or two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..inspection import Inspection
from ..recording import LayerRecord
from .encoding import (
    Blobs,
    as_png,
    principal_directions,
    quantise_features,
    quantise_rows,
)

__all__ = ['FORMAT', 'HEAD_LIMIT', 'Subject', 'gather']

#: Number of the form of the data. The page refuses another one.
FORMAT = 1
#: ``head_limit`` of a Recorder that keeps a page small: ViT-Base at 224×224 has its heads, at
#: 512×512 it has the mean of the heads.
HEAD_LIMIT = 2**20
#: Share of the values of a layer that a colour scale is to contain.
_CONTAINED = 0.999


@dataclass
class Subject:
    """A model of a page, and what was recorded of each image.

    Attributes:
        name: of the model.
        inspections: one per image, recorded with ``features``.
        classes, palette: names and RGB colours of the classes of its decoder, if it has one.
    """

    name: str
    inspections: list[Inspection]
    classes: Sequence[str] = ()
    palette: Sequence[Sequence[int]] = field(default_factory=list)


def gather(subjects: Sequence[Subject]) -> tuple[dict[str, Any], list[str]]:
    """The data of a page, and the texts of its arrays.

    Args:
        subjects: one model, or two that are compared, with the same images in the same order.

    Returns:
        what becomes the page's JSON; numbers under ``attention``, ``gaussian`` and so on are
        indices into the texts, which are deflated arrays as base64.

    Raises:
        ValueError: if the models have not seen the same images.
    """
    names = [[inspection.name for inspection in s.inspections] for s in subjects]
    if any(other != names[0] for other in names) or not names[0]:
        raise ValueError(f'the models of a page must have seen the same images, not {names}')
    blobs = Blobs()
    images = []
    for index, name in enumerate(names[0]):
        seen = [subject.inspections[index] for subject in subjects]
        colours, is_shared = _colour_features(seen)
        views = [
            _view(inspection, shades, blobs)
            for inspection, shades in zip(seen, colours, strict=True)
        ]
        images.append(
            dict(
                name=name,
                views=views,
                tops=_tops_of_scales(seen),
                sharedColours=is_shared,
            )
        )
    models = [
        dict(name=s.name, classes=list(s.classes), palette=[list(map(int, c)) for c in s.palette])
        for s in subjects
    ]
    return dict(format=FORMAT, models=models, images=images), blobs.texts


def _view(inspection: Inspection, colours: list[np.ndarray | None], blobs: Blobs) -> dict:
    """One image in one model."""
    height, width = inspection.picture.shape[:2]
    view: dict[str, Any] = dict(
        picture=as_png(inspection.picture),
        width=width,
        height=height,
        patch=list(inspection.patch_size),
        grid=list(inspection.grid_size),
        classTokens=inspection.num_class_tokens,
        layers=[
            _layer(inspection, layer, shades, blobs)
            for layer, shades in zip(inspection.layers, colours, strict=True)
        ],
    )
    if inspection.refinement is not None:
        weights = inspection.refinement
        view['refinement'] = dict(
            grid=list(weights.shape),
            pixels=list(inspection.patch_pixels((weights.shape[0], weights.shape[1]))),
            weights=blobs.add(weights.float().numpy()),
            pool=inspection.pool or 'avg',
        )
    if inspection.segmentation is not None:
        view['segmentation'] = blobs.add(inspection.segmentation.astype(np.uint16))
    return view


def _layer(
    inspection: Inspection, layer: LayerRecord, colours: np.ndarray | None, blobs: Blobs
) -> dict:
    weights, patches, rest = _patch_attention(layer)
    codes, scale, error = quantise_rows(weights)
    part: dict[str, Any] = dict(
        name=layer.name,
        grid=list(layer.grid_size),
        pixels=list(inspection.patch_pixels(layer.grid_size)),
        heads=len(weights) - 1,
        windows=len(patches),
        tokens=patches.shape[1],
        even=1 / layer.attention.shape[-1],
        attention=blobs.add(codes),
        scale=blobs.add(scale),
        rest=blobs.add(rest.numpy().astype(np.float32)),
        attentionError=error,
    )
    is_windowed = len(patches) > 1 or patches.shape[1] != math.prod(layer.grid_size)
    if is_windowed:
        part['patches'] = blobs.add(patches.numpy().astype(np.int32))
    if layer.variance is not None:
        gaussian = _gaussians(layer)
        part['gaussian'] = blobs.add(gaussian.numpy().astype(np.float32))
        part['correlation'] = gaussian.shape[-1] == 4
    if layer.similarity is not None:
        part['similarity'] = blobs.add(layer.similarity.numpy().astype(np.float32))
    if layer.features is not None:
        coordinates, scale, error = quantise_features(layer.features.flatten(0, 1))
        part.update(
            features=blobs.add(coordinates),
            featureScale=blobs.add(scale),
            rank=len(scale),
            cosineError=error,
        )
    if colours is not None:
        part['colours'] = blobs.add(colours)
    return part


def _patch_attention(layer: LayerRecord) -> tuple[Tensor, Tensor, Tensor]:
    """The weights among patches.

    Returns:
        weights ``[1 + heads, windows, N, N]``, the mean over the heads first; the patches
        ``[windows, N]`` of tokens, -1 for padding; and what is left of each row's sum of 1
        ``[1 + heads, windows, N]``, on prefix tokens or padding.
    """
    weights = layer.attention[None]
    if layer.head_attention is not None:
        weights = torch.cat((weights, layer.head_attention))
    patches = layer.patches
    total = weights.sum(-1)
    if len(patches) == 1:  # without prefix tokens
        inside = patches[0] >= 0
        patches, total = patches[:, inside], total[..., inside]
        weights = weights[..., inside, :][..., inside]
    weights = weights * (patches >= 0)[:, None, :]
    return weights, patches, (total - weights.sum(-1)).clamp(min=0)


def _gaussians(layer: LayerRecord) -> Tensor:
    """``[1 + heads, H, W, 3]``: variance of rows and columns in squared patches, and α in logits;
    rotated ones also have their correlation, ``[1 + heads, H, W, 4]``. The mean of heads is first.
    """
    assert layer.variance is not None and layer.alpha is not None
    parts = torch.cat((layer.variance, layer.alpha[..., None]), -1)[None]
    if layer.head_variance is not None and layer.head_alpha is not None:
        heads = torch.cat((layer.head_variance, layer.head_alpha[..., None]), -1)
        parts = torch.cat((parts, heads))
    if layer.correlation is None:
        return parts
    correlation = layer.correlation[None]
    if layer.head_correlation is not None:
        correlation = torch.cat((correlation, layer.head_correlation))
    return torch.cat((parts, correlation[..., None]), -1)


def _tops_of_scales(seen: Sequence[Inspection]) -> dict[str, float]:
    """The ends of the colour scales, which all layers and both models share.

    Attention is in multiples of even attention, σ in patches, α in logits.
    """
    peaks: dict[str, list[float]] = dict(attention=[10], sigma=[1], alpha=[0.1], anisotropy=[1.5])
    for layer in (layer for inspection in seen for layer in inspection.layers):
        weights = _patch_attention(layer)[0]
        peaks['attention'].append(_peak(weights[0]) * layer.attention.shape[-1])
        if layer.variance is None or layer.alpha is None:
            continue
        axes = _axes(layer)
        peaks['sigma'].append(_peak(axes.prod(-1).sqrt()))
        peaks['alpha'].append(_peak(layer.alpha))
        peaks['anisotropy'].append(_peak(axes[..., 1] / axes[..., 0].clamp(min=1e-6)))
    return {key: _round_up(max(values)) for key, values in peaks.items()}


def _axes(layer: LayerRecord) -> Tensor:
    """σ along the short and the long axis of the patches' Gaussians, ``[H, W, 2]``, in patches."""
    assert layer.variance is not None
    rows, columns = layer.variance.unbind(-1)
    correlation = torch.zeros_like(rows) if layer.correlation is None else layer.correlation
    mixed = correlation * (rows * columns).sqrt()
    covariance = torch.stack((rows, mixed, mixed, columns), -1).unflatten(-1, (2, 2))
    return torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()


def _peak(values: Tensor) -> float:
    """The value that nearly all lie below: an outlier would darken a whole scale."""
    ordered = np.sort(values.numpy(), axis=None)
    return float(ordered[min(len(ordered) - 1, int(_CONTAINED * len(ordered)))])


def _round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 5, 7 · 10ⁿ."""
    digits = 10.0 ** math.floor(math.log10(value))
    return next(s * digits for s in (1, 1.5, 2, 3, 5, 7, 10) if s * digits >= value * 0.999)


def _colour_features(
    seen: Sequence[Inspection],
) -> tuple[list[list[np.ndarray | None]], bool]:
    """Three principal components of the patches' features as RGB ``[H, W, 3]``, for each layer.

    Two models with equally many layers and channels get one basis and one scale for each layer,
    around the mean of each model.

    Returns:
        the colours of every model's layers, and whether the models share the bases.
    """
    shapes = [
        [None if layer.features is None else layer.features.shape[-1] for layer in one.layers]
        for one in seen
    ]
    is_shared = len(seen) > 1 and all(shape == shapes[0] for shape in shapes)
    if not is_shared:
        return [[_principal_colours([layer])[0] for layer in one.layers] for one in seen], False
    pairs = zip(*(one.layers for one in seen), strict=True)
    shades = [_principal_colours(pair) for pair in pairs]
    return [list(of_model) for of_model in zip(*shades, strict=True)], True


def _principal_colours(layers: Sequence[LayerRecord]) -> list[np.ndarray | None]:
    centred = []
    for layer in layers:
        if layer.features is None:
            return [None] * len(layers)
        unit = F.normalize(layer.features.flatten(0, 1).double(), dim=-1)
        centred.append(unit - unit.mean(0))
    stacked = torch.cat(centred)
    vectors = principal_directions(stacked)[:, :3]
    # The sign of a component is arbitrary: its largest entry is made positive.
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * torch.sign(largest)
    scores = stacked @ vectors
    low, high = scores.quantile(0.01, dim=0), scores.quantile(0.99, dim=0)
    shades = (scores - low) / (high - low).clamp(min=1e-12)
    codes = (255 * shades.clamp(0, 1)).round().to(torch.uint8)
    parts = codes.split([len(one) for one in centred])
    return [
        part.unflatten(0, layer.grid_size).numpy()
        for part, layer in zip(parts, layers, strict=True)
    ]
