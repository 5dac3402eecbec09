"""Trained models on a user's pictures: strictly loaded, with class names, whole or by windows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmpretrain.apis import ImageClassificationInferencer
from mmseg.apis import MMSegInferencer
from torch import Tensor, nn
from torch.nn import functional as F

from ..analysis.overlay import make_palette
from ..checkpoint import check_fit, read_content, read_state_dict, trust_checkpoints, unwrap
from ..config import image_channels, kind_of, walk
from ..datasets import check_channels
from ..datasets.channel_checks import count_windows
from .class_names import check_count, find_classes
from .rasters import FileReader, find_loader

__all__ = ['Classifier', 'Segmentor', 'predict_mask']

#: Logits at an image's own size beyond which they are resized strip by strip: 1 GiB.
_MOST_LOGITS = 2**28
_STRIP = 2**25
#: Pixels that enter a network whole, unless the user says otherwise: those of Cityscapes.
_MOST_WHOLE = 2048 * 1024


class Segmentor:
    """A segmentor of mmseg with its checkpoint, for one picture at a time.

    Model, test pipeline and forward pass are those of ``MMSegInferencer``. It does not load
    strictly, takes Cityscapes' names for unknown classes, names results after the file without
    its folder, holds all results in memory and stops at the first broken file: weights, names,
    reading and writing are therefore done here and in :mod:`locat_mm.cli.pictures`.

    Args:
        cfg: the config.
        checkpoint: what :func:`locat_mm.checkpoint.read_state_dict` reads.
        names: of the classes; None: the checkpoint's or the data set's.
        device: None: the accelerator if there is one.
        window: side of sliding windows in pixels of the network's input. None: the config's
            mode; pictures of more than 2048×1024 such pixels are then split into windows of the
            size of training.
        stride: between windows; None: two thirds of the window.
        full_resolution: leave out the resizing of the test pipeline.
        trust_checkpoint: execute what is in a file that cannot be read otherwise.

    Attributes:
        names, palette: of the classes.
        is_split: whether a picture was split into windows although the config says ``'whole'``.
        reader: of rasters or volumes, if the test pipeline has a transform that loads them. The
            model is then called with its samples.

    Raises:
        FileNotFoundError, ValueError: if the checkpoint does not fit, the classes are unknown
            or not as many as the model's, the model takes no windows, or numbers of channels
            differ.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        names: list[str] | None = None,
        device: str | None = None,
        window: int | None = None,
        stride: int | None = None,
        full_resolution: bool = False,
        trust_checkpoint: bool = False,
    ) -> None:
        _prepare(cfg, trust_checkpoint)
        if str(cfg.model.type).rpartition('.')[2] == 'InContextSegmentor':
            raise ValueError(
                f'{cfg.filename} is an InContextSegmentor, which needs labelled examples: use '
                'tools/segment.py'
            )
        # The config's own may write to TensorBoard or to services on the network.
        cfg.visualizer = dict(type='SegLocalVisualizer', vis_backends=[])
        if full_resolution:
            pipeline = cfg.test_dataloader.dataset.pipeline
            kept = [step for step in pipeline if not str(step.type).endswith('Resize')]
            cfg.test_dataloader.dataset.pipeline = kept
        loader, channels = find_loader(cfg), image_channels(cfg.model)
        self.reader = FileReader(loader) if loader is not None else None
        if loader is None and channels != 3:
            raise ValueError(
                f'{cfg.filename} has in_channels={channels}, and its test pipeline loads pictures, '
                'which have three channels here: load them by locat_mm.LoadGeoTIFF, which also '
                'reads PNG and plain TIFF, or by locat_mm.LoadNIfTI'
            )
        self._inferencer = _StrictInferencer(cfg, device=device)
        self.model = self._inferencer.model
        meta = _load(self.model, checkpoint)
        self.names, palette = find_classes(cfg, meta, names)
        check_count(self.names, getattr(self.model, 'num_classes', None))
        self.palette = palette or make_palette(self.names)
        self.is_split = False
        self._automatic = self._set_window(cfg, window, stride)
        preprocessor = cfg.model.get('data_preprocessor') or {}
        size = preprocessor.get('size') or cfg.get('crop_size') or (224, 224)
        # A model that fails here fails on every picture.
        if self.reader is None:
            self(np.zeros((*size, 3), np.uint8))
        else:
            # As loaded: several windows of a CT make channels of one.
            has_windows = count_windows(cfg.test_dataloader.dataset.pipeline) > 1
            trial = np.zeros((*size, 1 if has_windows else channels), np.float32)
            self(dict(img_path='', img=trial, img_shape=tuple(size), ori_shape=tuple(size)))
        self.is_split = False

    def _set_window(self, cfg: Config, window: int | None, stride: int | None) -> bool:
        """Prepare the sliding windows; return whether pictures decide if they are used."""
        model: Any = self.model
        mode = (model.test_cfg or {}).get('mode', 'whole') if hasattr(model, 'test_cfg') else ''
        can_slide = hasattr(model, 'slide_inference')
        if window is None:
            if mode == 'slide' or not can_slide:
                return False
            preprocessor = cfg.model.get('data_preprocessor') or {}
            sides = preprocessor.get('size') or cfg.get('crop_size') or (512, 512)
        elif not can_slide:
            raise ValueError(f'{type(model).__name__} takes no sliding windows: omit --window')
        else:
            sides = (window, window)
        padding = (cfg.model.get('data_preprocessor') or {}).get('test_cfg') or {}
        divisor = padding.get('size_divisor') or 1
        wrong = [side for side in sides if side % divisor]
        if wrong:
            near = wrong[0] // divisor * divisor or divisor
            raise ValueError(
                f'windows of {wrong[0]} pixels do not split into patches: take a multiple of '
                f'{divisor}, such as {near}'
            )
        steps = [stride or max(1, side * 2 // 3) for side in sides]
        if any(step > side for step, side in zip(steps, sides, strict=True)):
            raise ValueError(f'a stride of {stride} leaves gaps between windows of {sides[0]}')
        self._slide = ConfigDict(mode='slide', crop_size=tuple(sides), stride=tuple(steps))
        self._whole = model.test_cfg
        if window is not None:
            model.test_cfg = self._slide
        return window is None

    def __call__(self, image: np.ndarray | dict) -> np.ndarray:
        """
        Args:
            image: BGR, uint8 ``[H, W, 3]``; or a sample of the reader.

        Returns:
            classes ``[H, W]``.
        """
        (batch,) = self._inferencer.preprocess([image])
        if self._automatic:
            height, width = batch['inputs'][0].shape[-2:]
            splits = height * width > _MOST_WHOLE
            self.is_split |= splits
            model: Any = self.model
            model.test_cfg = self._slide if splits else self._whole
        return predict_mask(self.model, batch)

    @property
    def window(self) -> int:
        """Side of the sliding windows."""
        return self._slide.crop_size[0]


class _StrictInferencer(MMSegInferencer):
    """mmseg's inferencer without its loading, which keeps random weights where names differ."""

    def _load_weights_to_model(self, *args: Any) -> None:
        pass

    def _init_pipeline(self, cfg: Config) -> Any:
        """The test pipeline without annotations and, for rasters and volumes, their loading."""
        loader = find_loader(cfg)
        if loader is None:
            return super()._init_pipeline(cfg)
        steps = cfg.test_dataloader.dataset.pipeline
        return Compose(
            [s for s in steps if s is not loader and not kind_of(s).endswith('Annotations')]
        )

    def _init_collate(self, cfg: Config) -> Any:
        return pseudo_collate  # and not the config's: one picture at a time


class Classifier:
    """An image classifier of mmpretrain with its checkpoint, for one picture at a time.

    Args:
        cfg, checkpoint, names, device, trust_checkpoint: as for :class:`Segmentor`.

    Attributes:
        names: of the classes.

    Raises:
        FileNotFoundError, ValueError: as :class:`Segmentor`; or if the model gives no scores.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        names: list[str] | None = None,
        device: str | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        _prepare(cfg, trust_checkpoint)
        loader = find_loader(cfg)
        if loader is not None or image_channels(cfg.model) != 3:
            raise ValueError(
                f'{cfg.filename} is a classifier for other images than pictures of three channels, '
                'which are classified by tools/test.py alone'
            )
        self._inferencer = ImageClassificationInferencer(
            cfg, pretrained=False, device=device or _accelerator(), classes=[]
        )
        model: Any = self._inferencer.model
        meta = _load(model, checkpoint)
        self.names, _ = find_classes(cfg, meta, names)
        samples = self._predict(np.zeros((224, 224, 3), np.uint8))
        if not isinstance(samples[0].get('pred_score'), Tensor):
            raise ValueError(f'{type(model).__name__} gives no class scores: it is no classifier')
        check_count(self.names, len(samples[0].pred_score))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """
        Args:
            image: BGR, uint8 ``[H, W, 3]``.

        Returns:
            score of each class.
        """
        return self._predict(image)[0].pred_score.float().cpu().numpy()

    def _predict(self, image: np.ndarray) -> Any:
        (batch,) = self._inferencer.preprocess([image])
        return self._inferencer.forward(batch)


def predict_mask(model: nn.Module, batch: dict) -> np.ndarray:
    """The classes of one picture, at its own size, in bounded memory.

    mmseg resizes the logits of all classes to the picture's size: 7 GB for 150 classes and a
    photo of 12 megapixels. Beyond 1 GiB the same is done here strip by strip.

    Args:
        model: a segmentor of mmseg.
        batch: one picture, as a test pipeline and ``pseudo_collate`` give it.

    Returns:
        classes ``[H, W]``.

    Raises:
        ValueError: if the model predicts no classes.
    """
    segmentor: Any = model
    (sample,) = batch['data_samples']
    height, width = sample.ori_shape[:2]
    classes = getattr(model, 'out_channels', 1)
    by_strips = classes > 1 and classes * height * width > _MOST_LOGITS
    if by_strips:
        sample.set_metainfo(dict(ori_shape=tuple(sample.img_shape[:2])))
    with torch.no_grad():
        (sample,) = segmentor.test_step(batch)
    if 'pred_sem_seg' not in sample:
        raise ValueError(f'{type(model).__name__} predicts no classes: it is no segmentor')
    if by_strips:
        return _resized_argmax(sample.seg_logits.data, (height, width), segmentor.align_corners)
    return sample.pred_sem_seg.data[0].cpu().numpy()


def _resized_argmax(logits: Tensor, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """``resize(logits, size).argmax(0)`` of bilinear interpolation, some rows at a time.

    Args:
        logits: ``[C, h, w]``.
    """
    given, (height, width) = logits.shape[1], size
    rows = torch.arange(height, device=logits.device, dtype=torch.float32)
    if align_corners:
        rows = rows * ((given - 1) / max(height - 1, 1))
    else:
        rows = ((rows + 0.5) * (given / height) - 0.5).clamp(0, given - 1)
    above = rows.floor().long()
    below = (above + 1).clamp(max=given - 1)
    share = (rows - above)[:, None]
    mask = np.empty(size, np.int64)
    step = max(1, _STRIP // (len(logits) * width))
    for start in range(0, height, step):
        part = slice(start, start + step)
        strip = torch.lerp(logits[:, above[part]], logits[:, below[part]], share[part])
        strip = F.interpolate(
            strip[None], (strip.shape[1], width), mode='bilinear', align_corners=align_corners
        )
        mask[part] = strip[0].argmax(dim=0).cpu().numpy()
    return mask


def _accelerator() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def _prepare(cfg: Config, trust_checkpoint: bool) -> None:
    """What every model needs before it is built.

    Raises:
        ValueError: if the config has no test pipeline.
    """
    trust_checkpoints(trust_checkpoint)
    init_default_scope(cfg.default_scope)
    if not ((cfg.get('test_dataloader') or {}).get('dataset') or {}).get('pipeline'):
        raise ValueError(
            f'{cfg.filename} has no test_dataloader.dataset.pipeline, which says how pictures '
            'are prepared'
        )
    check_channels(cfg)
    # All weights come from the checkpoint: timm need not load its own.
    for _, part in walk(cfg.model):
        if part.get('pretrained') is True:
            part['pretrained'] = False


def _load(model: nn.Module, checkpoint: str) -> dict:
    """Fill a model, strictly; return what the checkpoint says of its data set."""
    path = Path(checkpoint).expanduser()
    content = read_content(path) if path.is_file() else read_state_dict(checkpoint)
    fitted = check_fit(model, unwrap(content, checkpoint), checkpoint)
    model.load_state_dict(fitted.state, strict=False)  # every key has been checked
    meta = content.get('meta')
    if not isinstance(meta, Mapping):
        return {}
    lower = {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if meta.get(key)}
    return dict(meta.get('dataset_meta') or lower)  # names in capitals: mmseg and mmcls 0.x
