"""An in-context segmentor from a model of timm or a config, filled with a user's examples."""

import inspect
from collections.abc import Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
import timm
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from torch import nn

from ..checkpoint import check_fit, read_state_dict
from ..evaluation import InContextSegmentor
from ..models.backbones.base import HostedBackbone, TokenBackbone
from ..registry import MODELS
from .inference import predict_mask

__all__ = ['ExampleSegmentor', 'Scores', 'config_backbone', 'timm_backbone']

_IMAGENET = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def timm_backbone(
    name: str, weights: str | None = None, attach: str | None = None, size: int | None = None
) -> tuple[nn.Module, dict, int]:
    """A transformer of timm with its weights.

    Args:
        name: timm's.
        weights: a file instead of timm's pretrained weights.
        attach: attach GAug with this start; see :func:`locat_mm.attach`.
        size: side of images; None: that of the pretraining.

    Returns:
        the backbone, mean and std of its images, and the side of images.

    Raises:
        FileNotFoundError, ValueError: if timm has no such transformer, or its weights cannot be
            read or do not fit.
    """
    init_default_scope('mmseg')
    init = dict(type='Pretrained', checkpoint=weights or f'timm:{name}')
    cfg: dict = dict(type='locat_mm.TIMMBackbone', model_name=name, frozen=True, init_cfg=init)
    wrapped = dict(type='locat_mm.LocAt', backbone=cfg, start=attach) if attach else cfg
    backbone: Any = MODELS.build(wrapped)
    native = _native_size(backbone)
    if size not in (None, native) and not hasattr(backbone.model, 'dynamic_img_size'):
        cfg['img_size'] = size  # these hosts take one size alone
        backbone = MODELS.build(wrapped)
    backbone.init_weights()
    of_images = timm.get_pretrained_cfg(name)
    assert of_images is not None
    scale = dict(mean=of_images.mean, std=of_images.std)
    normalisation = {key: [255 * x for x in value] for key, value in scale.items()}
    return backbone, normalisation, size or native or of_images.input_size[-1]


def _native_size(backbone: Any) -> int | None:
    sides = getattr(getattr(backbone.model, 'patch_embed', None), 'img_size', None)
    return sides[0] if sides else None


def config_backbone(
    cfg: Config, checkpoint: str, prefix: str | None = None, size: int | None = None
) -> tuple[nn.Module, dict, int]:
    """The backbone of a config's model with its part of a checkpoint, strictly loaded.

    Args:
        cfg: of a classifier, a segmentor or an :class:`InContextSegmentor`.
        checkpoint: what :func:`locat_mm.checkpoint.read_state_dict` reads, of the whole model or
            of the backbone.
        prefix: what the backbone's names in the checkpoint start with; None: ``'backbone.'``
            where the file has it.
        size: side of images; None: the backbone's ``img_size`` or 224.

    Returns:
        as :func:`timm_backbone`.

    Raises:
        FileNotFoundError, ValueError: if the weights cannot be read or do not fit, or the model
            has no backbone.
    """
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    whole = cfg.model.get('backbone')
    if whole is None:
        raise ValueError(f'the model of {cfg.filename} ({cfg.model.type}) has no backbone')
    host = whole
    while 'backbone' in host:  # locat_mm.LocAt around the host
        host = host.backbone
    cls: Any = MODELS.get(host.type) if isinstance(host.type, str) else host.type
    is_ours = issubclass(cls, (TokenBackbone, HostedBackbone))
    known = inspect.signature(cls).parameters
    # The last block's patch map; of our own backbones before the final norm, as in
    # configs/in_context.
    wanted: dict = dict(out_type='featmap', frozen=True)
    if issubclass(cls, TokenBackbone):
        wanted['final_norm'] = False
    host.update({key: value for key, value in wanted.items() if key in known})
    for key in ('pretrained', 'init_cfg'):
        host.pop(key, None)
        whole.pop(key, None)
    if is_ours:
        init = dict(type='Pretrained', checkpoint=checkpoint)
        host.init_cfg = {**init, **(dict(prefix=prefix) if prefix else {})}
    backbone: Any = MODELS.build(whole)
    if is_ours:
        backbone.init_weights()
    else:
        _load(backbone, checkpoint, prefix)
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    normalisation = {key: preprocessor.get(key, value) for key, value in _IMAGENET.items()}
    if not (preprocessor.get('bgr_to_rgb', True) and preprocessor.get('to_rgb', True)):
        normalisation['bgr_to_rgb'] = False
    given = host.get('img_size') or 224
    return backbone, normalisation, size or (given if isinstance(given, int) else given[0])


def _load(backbone: nn.Module, checkpoint: str, prefix: str | None) -> None:
    state = read_state_dict(checkpoint)
    if prefix:
        start = f'{prefix.removesuffix(".")}.'
        part = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        if not part:
            first = ', '.join(list(state)[:5])
            raise ValueError(
                f'{checkpoint} has no key that starts with {start!r}; its first are {first}'
            )
        state = {f'backbone.{key}': value for key, value in part.items()}
    fitted = check_fit(backbone, state, checkpoint, whole=False)
    backbone.load_state_dict(fitted.state, strict=False)  # all but fresh GAug is checked


class ExampleSegmentor:
    """Segments pictures by labelled examples, on :class:`InContextSegmentor`.

    Examples and pictures are resized to a square, as in the method's paper; the shares of the
    classes are resized to the picture.

    Args:
        backbone, normalisation, size: of :func:`timm_backbone` or :func:`config_backbone`.
        num_classes: of the examples.
        num_neighbours, temperature, ignore_index: of the segmentor.
        device: None: a GPU if there is one.

    Raises:
        ValueError: if ``size`` is no multiple of the patch.
    """

    def __init__(
        self,
        backbone: nn.Module,
        normalisation: dict,
        size: int,
        num_classes: int,
        num_neighbours: int = 30,
        temperature: float = 0.02,
        ignore_index: int = 255,
        device: str | None = None,
    ) -> None:
        convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
        patch = next((m.stride[0] for m in convolutions), 1)
        if size % patch:
            lower = size // patch * patch
            near = f'{lower} or {lower + patch}' if lower else str(patch)
            raise ValueError(f'--size {size} is no multiple of the patch, {patch}: take {near}')
        self.size = size
        self.model = InContextSegmentor(
            dict(type=lambda: backbone),  # it is built and loaded already
            num_classes,
            num_neighbours,
            temperature,
            ignore_index=ignore_index,
            data_preprocessor=dict(
                type='mmseg.SegDataPreProcessor', **{'bgr_to_rgb': True, **normalisation}
            ),
        ).eval()
        self.model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))

    def learn(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
        """Fill the bank.

        Args:
            images: BGR, uint8 ``[H, W, 3]``.
            masks: their classes ``[H, W]``.

        Raises:
            ValueError: if fewer patches are labelled than neighbours are looked up.
        """
        self.model.start_bank(len(images))
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            data = self.model.data_preprocessor(self._pack(image), False)
            small = cv2.resize(
                mask.astype(np.uint16), (self.size, self.size), interpolation=cv2.INTER_NEAREST
            )
            labels = torch.from_numpy(small.astype(np.int64))[None].to(data['inputs'].device)
            self.model.memorize(data['inputs'], labels, [index])
        self.model.finish_bank()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """
        Args:
            image: BGR, uint8 ``[H, W, 3]``.

        Returns:
            classes ``[H, W]``.
        """
        return predict_mask(self.model, self._pack(image))

    def _pack(self, image: np.ndarray) -> dict:
        resized = mmcv.imresize(image, (self.size, self.size))
        sample = SegDataSample(
            metainfo=dict(ori_shape=image.shape[:2], img_shape=(self.size, self.size))
        )
        pixels = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return dict(inputs=[pixels], data_samples=[sample])


class Scores:
    """mmseg's ``IoUMetric`` over masks that are predicted one by one.

    Args:
        names: of the classes.
        ignore_index: value of the ground truth that does not count.
    """

    def __init__(self, names: Sequence[str], ignore_index: int) -> None:
        self.metric = IoUMetric(ignore_index=ignore_index)
        self.metric.dataset_meta = dict(classes=list(names))
        self.names = names

    def add(self, mask: np.ndarray, truth: np.ndarray) -> None:
        """Compare two maps of classes ``[H, W]``."""
        samples = dict(pred_sem_seg=mask, gt_sem_seg=truth)
        packed = {key: PixelData(data=torch.from_numpy(x)[None]) for key, x in samples.items()}
        self.metric.process({}, [SegDataSample(**packed).to_dict()])

    def summarise(self) -> dict:
        """Print the table of classes; return all numbers, in percent."""
        count = len(self.metric.results)
        areas = [sum(area) for area in zip(*self.metric.results, strict=True)]
        single = IoUMetric.total_area_to_metrics(*areas, ['mIoU'])
        classes = {
            name: {key: _percent(single[key][i]) for key in ('IoU', 'Acc')}
            for i, name in enumerate(self.names)
        }
        means = self.metric.evaluate(count)
        return {
            **{k: round(float(v), 2) for k, v in means.items()},
            'images': count,
            'classes': classes,
        }


def _percent(value: float) -> float | None:
    """None for a class that is nowhere."""
    return None if np.isnan(value) else round(100 * float(value), 2)
