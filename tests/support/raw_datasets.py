"""Miniatures of what the satellite and medical data sets are downloaded as, and mmseg's converters.

The archives, folders and names are those that the converters expect; images are a few dozen pixels
wide. Every class occurs in every mask.
"""

import gzip
import io
import runpy
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import mmseg
import nibabel
import numpy as np
import pytest
from PIL import Image

#: Pillow saves masks of this mode, without a palette, with one bit a pixel.
ISAID_FAULT = ", mode='P'"
CONVERTERS = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'dataset_converters'
#: Potsdam's and Vaihingen's colours of the values 0 to 6, as RGB.
ISPRS = [(0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0)]
ISPRS += [(255, 0, 0)]
#: iSAID's colours of the values 0 to 15, as RGB.
ISAID = [(0, 0, 0), (0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127), (0, 63, 191), (0, 63, 255)]
ISAID += [(0, 127, 63), (0, 127, 127), (0, 0, 127), (0, 0, 191), (0, 0, 255), (0, 191, 127)]
ISAID += [(0, 127, 191), (0, 127, 255), (0, 100, 155)]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise, uint8 [height, width, 3]; equal for equal seeds."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def stripes(values: list, height: int, width: int) -> np.ndarray:
    """Upright stripes of the values, uint8 [height, width] or, for colours, [height, width, 3]."""
    index = np.arange(width) * len(values) // width
    return np.broadcast_to(np.array(values, np.uint8)[index], (height, width, *np.shape(values[0])))


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    """A file of this Pillow format."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind)
    return file.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def loveda(raw: Path) -> list[str]:
    for split in ('Train', 'Val', 'Test'):
        files = {}
        for number, place in enumerate(('Rural', 'Urban')):
            image = photo(64, 64, 10 * len(split) + number)
            files[f'{split}/{place}/images_png/{number}.png'] = encoded(image, 'PNG')
            if split != 'Test':
                mask = encoded(stripes([*range(8)], 64, 64), 'PNG')
                files[f'{split}/{place}/masks_png/{number}.png'] = mask
        write_zip(raw / f'{split}.zip', files)
    return [str(raw)]


def potsdam(raw: Path) -> list[str]:
    images, labels = {}, {}
    for seed, tile in enumerate(('2_10', '2_13')):  # one of the training, one of the validation
        name = f'top_potsdam_{tile}'
        images[f'2_Ortho_RGB/{name}_RGB.tif'] = encoded(photo(96, 96, seed), 'TIFF')
        labels[f'{name}_label.tif'] = encoded(stripes(ISPRS, 96, 96), 'TIFF')
    write_zip(raw / '2_Ortho_RGB.zip', images)
    write_zip(raw / '5_Labels_all_noBoundary.zip', labels)
    return [str(raw), '--clip_size', '64', '--stride_size', '32']


def vaihingen(raw: Path) -> list[str]:
    images, labels = {}, {}
    for seed, area in enumerate(('area1', 'area2')):
        name = f'top_mosaic_09cm_{area}'
        images[f'top/{name}.tif'] = encoded(photo(96, 96, seed), 'TIFF')
        labels[f'{name}_noBoundary.tif'] = encoded(stripes(ISPRS, 96, 96), 'TIFF')
    write_zip(raw / 'ISPRS_semantic_labeling_Vaihingen.zip', images)
    write_zip(raw / 'ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip', labels)
    return [str(raw), '--clip_size', '64', '--stride_size', '32']


def isaid(raw: Path) -> list[str]:
    for seed, split in enumerate(('train', 'val', 'test')):
        name = f'images/P000{seed}'
        image = encoded(photo(96, 128, seed), 'PNG')
        write_zip(raw / split / 'images' / 'part1.zip', {f'{name}.png': image})
        if split != 'test':
            mask = {f'{name}_instance_color_RGB.png': encoded(stripes(ISAID, 96, 128), 'PNG')}
            write_zip(raw / split / 'Semantic_masks' / 'images.zip', mask)
    return [str(raw), *('--patch_width', '64', '--patch_height', '64', '--overlap_area', '32')]


def vessels(height: int, width: int) -> np.ndarray:
    """0 and 255 in stripes."""
    return stripes([0, 255, 0, 255, 0], height, width)


def drive(raw: Path) -> list[str]:
    for split, numbers in (('training', (21, 22)), ('test', (1, 2))):
        files = {}
        for number in numbers:
            image, mask = photo(73, 71, number), vessels(73, 71)
            files[f'{split}/images/{number:02}_{split}.tif'] = encoded(image, 'TIFF')
            files[f'{split}/1st_manual/{number:02}_manual1.gif'] = encoded(mask, 'GIF')
        write_zip(raw / f'{split}.zip', files)
    return [str(raw / 'training.zip'), str(raw / 'test.zip')]


def chase_db1(raw: Path) -> list[str]:
    files = {}
    for number in range(1, 15):
        for side in 'LR':
            name = f'Image_{number:02}{side}'
            files[f'{name}.jpg'] = encoded(photo(60, 62, 2 * number + (side == 'L')), 'JPEG')
            for reader in ('1stHO', '2ndHO'):
                files[f'{name}_{reader}.png'] = encoded(vessels(60, 62) > 0, 'PNG')
    return [str(write_zip(raw / 'CHASEDB1.zip', files))]


def stare(raw: Path) -> list[str]:
    raw.mkdir(parents=True)
    kinds = {'stare-images': '', 'labels-ah': '.ah', 'labels-vk': '.vk'}
    for name, suffix in kinds.items():
        with tarfile.open(raw / f'{name}.tar', 'w') as archive:
            for number in range(1, 21):
                pixels = vessels(60, 70) if suffix else photo(60, 70, number)
                content = gzip.compress(encoded(pixels, 'PPM'))
                info = tarfile.TarInfo(f'im{number:04}{suffix}.ppm.gz')
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return [str(raw / f'{name}.tar') for name in kinds]


def hrf(raw: Path) -> list[str]:
    given = []
    for seed, (kind, short) in enumerate(
        (('healthy', 'h'), ('glaucoma', 'g'), ('diabetic_retinopathy', 'dr'))
    ):
        images, masks = {}, {}
        for number in range(1, 16):
            image = photo(58, 88, 100 * seed + number)
            images[f'{number:02}_{short}.jpg'] = encoded(image, 'JPEG')
            masks[f'{number:02}_{short}.tif'] = encoded(vessels(58, 88), 'TIFF')
        given.append(str(write_zip(raw / f'{kind}.zip', images)))
        given.append(str(write_zip(raw / f'{kind}_manualsegm.zip', masks)))
    return given


def synapse(raw: Path) -> list[str]:
    for folder in ('img', 'label'):
        (raw / folder).mkdir(parents=True)
    for split, number in (('train', '0005'), ('val', '0001')):
        (raw / f'{split}.txt').write_text(f'img{number}.nii.gz\n')
        volume = np.random.default_rng(int(number)).integers(-1000, 1000, (64, 64, 3))
        organs = np.repeat(stripes([*range(14)], 64, 64)[..., None], 3, axis=2)
        for kind, values in (('img', volume), ('label', organs)):
            file = raw / kind / f'{kind}{number}.nii.gz'
            nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.eye(4)), file)
    return ['--dataset-path', str(raw)]


def refuge(raw: Path) -> list[str]:
    parts = {
        'REFUGE-Training400.zip': ('Training400/Glaucoma', 'g', 'jpg'),
        'Annotation-Training400.zip': ('Annotation/Disc_Cup_Masks/Glaucoma', 'g', 'bmp'),
        'REFUGE-Validation400.zip': ('REFUGE-Validation400', 'V', 'jpg'),
        'REFUGE-Validation400-GT.zip': ('REFUGE-Validation400-GT/Disc_Cup_Masks', 'V', 'bmp'),
        'REFUGE-Test400.zip': ('Test400', 'T', 'jpg'),
        'REFUGE-Test-GT.zip': ('REFUGE-Test-GT/Disc_Cup_Masks', 'T', 'bmp'),
    }
    for archive, (folder, letter, suffix) in parts.items():
        files = {}
        for number in (1, 2):
            pixels = photo(82, 85, ord(letter) + number)
            if suffix == 'bmp':
                pixels = stripes([255, 128, 0, 128, 255], 82, 85)
            kind = 'BMP' if suffix == 'bmp' else 'JPEG'
            files[f'{folder}/{letter}{number:04}.{suffix}'] = encoded(pixels, kind)
        write_zip(raw / archive, files)
    return ['--raw_data_root', str(raw)]


#: Name of the data set (of mmseg's config and converter) -> writes it, returns the arguments.
RAW: dict[str, Callable[[Path], list[str]]] = {
    writer.__name__: writer
    for writer in (
        *(loveda, potsdam, vaihingen, isaid),
        *(drive, chase_db1, stare, hrf, synapse, refuge),
    )
}


def convert(name: str, raw: Path, monkeypatch: pytest.MonkeyPatch, fixed: bool = True) -> None:
    """Write a miniature below ``raw`` and run mmseg's converter, which writes to ``data``.

    Args:
        fixed: iSAID's converter with the correction of docs/satellite.md.
    """
    script = CONVERTERS / f'{name}.py'
    arguments = RAW[name](raw)
    if name == 'isaid' and fixed:
        text = script.read_text()
        assert text.count(ISAID_FAULT) == 1
        script = raw / 'isaid_converter.py'
        script.write_text(text.replace(ISAID_FAULT, ''))
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    runpy.run_path(str(script), run_name='__main__')
