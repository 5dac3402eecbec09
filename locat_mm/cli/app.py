"""What the app does with what is uploaded, without its user interface."""

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import nn

from ..analysis.inspection import Inspector
from ..analysis.overlay import draw_overlay, make_palette, with_legend
from ..analysis.page import write_page
from ..config import load_config
from .class_names import read_class_names
from .examples import read_examples
from .in_context import ExampleSegmentor, config_backbone
from .pages import look_at, name_classes
from .pictures import read_picture

__all__ = ['App']


class App:
    """A trained model for uploads: each method takes files and gives pictures and files.

    Every fault of an upload is a ValueError whose text is for the user. The next call works.

    Args:
        config: config file of mmpretrain or mmseg. Segmentors run on whole pictures, also where
            the config says sliding windows, because a page shows one run.
        checkpoint: a source for :func:`locat_mm.checkpoint.read_state_dict`; every key must fit.
        folder: for results; they are left there.
        classes: a file with a class name per line; None: those of the data set.
        most_megabytes: of a file.
        most_megapixels: of a picture, in millions of pixels.
        most_patches: of a picture as the config resizes it. Attention takes their square.
        size: side that examples are resized to; None: that of the backbone.

    Raises:
        FileNotFoundError, ValueError: if the model cannot be built, loaded or looked into.
    """

    def __init__(
        self,
        config: str,
        checkpoint: str,
        folder: str | Path,
        classes: str | None = None,
        most_megabytes: float = 50,
        most_megapixels: float = 50,
        most_patches: int = 4096,
        size: int | None = None,
    ) -> None:
        self.config, self.checkpoint, self.folder = config, checkpoint, Path(folder)
        self.most_megabytes, self.most_megapixels = most_megabytes, most_megapixels
        self.most_patches, self.size = most_patches, size
        test_cfg = load_config(config).model.get('test_cfg') or {}
        is_sliding = test_cfg.get('mode') == 'slide'
        overrides = {'model.test_cfg.mode': 'whole'} if is_sliding else None
        self.inspector = Inspector(config, checkpoint, overrides)
        self.names = read_class_names(classes) if classes else None
        self.is_segmentor = hasattr(self.inspector.model, 'decode_head')
        if self.is_segmentor:
            self.classes, self.palette = name_classes(self.inspector, self.names)
        self._pages = 0
        self._backbone: tuple[nn.Module, dict, int] | None = None

    def look(self, photo: str | None) -> tuple[np.ndarray, Path]:
        """Segment a photo and write its page.

        Args:
            photo: path of the upload.

        Returns:
            the map over the photo with its classes, RGB uint8 (for a classifier the picture that
            it gets), and the page.

        Raises:
            ValueError: if the upload is no image, damaged or too large.
        """
        if not photo:
            raise ValueError('There is no photo: choose an image file first')
        image = self._read(photo)
        with tempfile.TemporaryDirectory() as place:
            # The model's pipeline reads files. What it reads here is what was checked above.
            path = Path(place) / f'{Path(photo).stem}.png'
            Image.fromarray(image[..., ::-1]).save(path)
            height, width = self.inspector.pipeline(dict(img_path=str(path)))['inputs'].shape[-2:]
            rows, columns = self.inspector.patch_size
            count = -(-height // rows) * -(-width // columns)
            if count > self.most_patches:
                raise ValueError(
                    f'The picture becomes {width}×{height} pixels, {count} patches, and at most '
                    f'{self.most_patches} are looked at: cut it to a shape closer to a square'
                )
            subject = look_at(self.inspector, Path(self.config).stem, [path], classes=self.names)
        self._pages += 1
        page = write_page([subject], self.folder / f'page_{self._pages}.html')
        (inspection,) = subject.inspections
        if inspection.segmentation is None:
            return inspection.picture, page
        overlay = draw_overlay(inspection.picture, inspection.segmentation, self.palette)
        return with_legend(overlay, inspection.segmentation, self.classes, self.palette), page

    def segment(
        self, images: Sequence[str] | None, masks: Sequence[str] | None, photo: str | None
    ) -> np.ndarray:
        """Segment a photo by labelled examples, without training.

        Args:
            images, masks: paths of the uploads; a mask has the name of its image.
            photo: path of the upload.

        Returns:
            the map over the photo with its classes, RGB uint8.

        Raises:
            ValueError: if an upload is missing, no image, damaged, too large, or does not fit.
        """
        if not (images and masks and photo):
            raise ValueError('Three things are needed: example images, their masks and a photo')
        image = self._read(photo)
        for example in images:
            self._read(example)
        with tempfile.TemporaryDirectory() as place:
            folders = [Path(place) / kind for kind in ('images', 'masks')]
            for folder, uploads in zip(folders, (images, masks), strict=True):
                folder.mkdir()
                for upload in uploads:
                    shutil.copy(upload, folder / Path(upload).name)
            with _nameless(place):
                pictures, labels, names = read_examples(str(folders[0]), str(folders[1]))
        if self._backbone is None:
            cfg = load_config(self.config)
            self._backbone = config_backbone(cfg, self.checkpoint, size=self.size)
        model = ExampleSegmentor(*self._backbone, len(names))
        model.learn(pictures, labels)
        mask = model(image)
        palette = make_palette(names)
        rgb = np.ascontiguousarray(image[..., ::-1])
        return with_legend(draw_overlay(rgb, mask, palette), mask, names, palette)

    def _read(self, upload: str) -> np.ndarray:
        """BGR, uint8 ``[H, W, 3]``, with a message that names the upload without its folder."""
        path = Path(upload)
        megabytes = path.stat().st_size / 1e6
        if megabytes > self.most_megabytes:
            raise ValueError(
                f'{path.name} has {megabytes:.1f} MB, and at most {self.most_megabytes:g} are '
                'taken: make it smaller'
            )
        megapixels = _megapixels(path)
        if megapixels > self.most_megapixels:
            size = 'too many' if math.isinf(megapixels) else f'{megapixels:.0f}'
            raise ValueError(
                f'{path.name} has {size} megapixels, and at most '
                f'{self.most_megapixels:g} are taken: make it smaller'
            )
        with _nameless(path.parent):
            return read_picture(path)


def _megapixels(path: Path) -> float:
    """By the header, before anything is decoded; 0 for a kind that Pillow does not know."""
    try:
        with Image.open(path) as image:
            return image.width * image.height / 1e6
    except Image.DecompressionBombError:
        return math.inf
    except (OSError, UnidentifiedImageError):
        return 0.0


@contextmanager
def _nameless(folder: str | Path) -> Iterator[None]:
    """Take a folder that no user knows out of the text of an error."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(str(error).replace(f'{folder}/', '')) from error
