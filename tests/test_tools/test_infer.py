"""tools/infer.py: odd pictures, masks against direct calls of the model, windows, classes."""

import csv
import json
import runpy

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import ExifTags, Image, ImageOps
from torch.nn import functional as F

from locat_mm.cli import inference
from locat_mm.cli.pictures import find_pictures, read_picture
from locat_mm.config import config_path, load_config

SEGMENT = 'configs/demo/locatvit_segment.py'
CLASSIFY = 'configs/demo/locatvit_classify.py'


def colours(height: int = 20, width: int = 28, seed: int = 0) -> Image.Image:
    """Smooth enough for JPEG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def build(config, **overrides):
    """A random model of a config, whose predictions vary from pixel to pixel."""
    torch.manual_seed(0)
    cfg = load_config(str(config), overrides)
    init_default_scope(cfg.default_scope)
    if cfg.model.get('data_preprocessor') is None:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model).eval()
    last = model.head.fc if hasattr(model, 'head') else model.decode_head.conv_seg
    torch.nn.init.normal_(last.weight)
    return cfg, model


@pytest.fixture(scope='module')
def main(root):
    return runpy.run_path(str(root / 'tools' / 'infer.py'))['main']


@pytest.fixture(scope='module')
def segmentor(root, tmp_path_factory):
    """Config file, checkpoint and the model itself."""
    cfg, model = build(root / SEGMENT)
    path = tmp_path_factory.mktemp('segmentor') / 'model.pth'
    meta = dict(dataset_meta=dict(cfg.metainfo))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return root / SEGMENT, path, model


@pytest.fixture
def infer(main, segmentor, tmp_path):
    """Run the tool on pictures; return the exit status and the folder of results."""

    def infer(*images, config=segmentor[0], checkpoint=segmentor[1], options=()):
        out = tmp_path / 'out'
        inputs = [*map(str, images), '--config', str(config), '--checkpoint', str(checkpoint)]
        return main([*inputs, '--out', str(out), '--device', 'cpu', *options]), out

    return infer


@torch.no_grad()
def direct(model, path) -> np.ndarray:
    """The classes by the model's own functions."""
    rgb = ImageOps.exif_transpose(Image.open(path)).convert('RGB')
    pixels = (torch.tensor(np.asarray(rgb)).permute(2, 0, 1).float() - 127.5) / 64
    height, width = pixels.shape[1:]
    padded = F.pad(pixels, (0, -width % 8, 0, -height % 8))[None]
    metas = [dict(img_shape=padded.shape[2:])]
    logits = model.encode_decode(padded, metas)[0, :, :height, :width]
    return logits.argmax(dim=0).numpy()


@pytest.fixture
def photos(tmp_path):
    """A folder as people have them."""
    folder = tmp_path / 'photos'
    below = folder / 'at the Müller’s'
    below.mkdir(parents=True)
    image = colours()
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    image.save(folder / 'plain.png')
    image.save(folder / 'plain.bmp')
    image.save(below / 'plain.png')
    image.save(below / 'ünï 花.jpg')
    image.save(folder / 'turned.jpg', exif=turned)
    image.convert('L').save(folder / 'grey.png')
    image.convert('RGBA').save(folder / 'alpha.png')
    image.convert('P').save(folder / 'palette.png')
    image.convert('CMYK').save(folder / 'cmyk.jpg')
    grey = np.asarray(image.convert('L')).astype(np.uint16)
    Image.fromarray(grey * 257).save(folder / 'deep.png')
    colours(1, 1).save(folder / 'tiny.png')
    Image.fromarray(grey).save(folder / 'bad dark.png')
    Image.fromarray(grey.astype(np.float32)).save(folder / 'bad float.tif')
    content = (folder / 'turned.jpg').read_bytes()
    (folder / 'bad cut.jpg').write_bytes(content[: len(content) // 2])
    (folder / 'bad text.jpg').write_text('a text')
    (folder / 'bad empty.png').write_bytes(b'')
    (folder / 'bad phone.HEIC').write_bytes(b'ftypheic')
    (folder / 'notes.txt').write_text('no image')
    (folder / '._plain.png').write_bytes(b'of a Mac')
    return folder


def test_odd_photos(infer, segmentor, photos, capsys):
    """Each is right or has one line; the rest is done, and the exit status says so."""
    status, out = infer(photos)
    assert status == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if 'FAILED: ' in line]
    said = sorted(line.partition('bad ')[2] for line in lines)
    assert [line.split()[0] for line in said] == [
        *('cut.jpg', 'dark.png', 'empty.png', 'float.tif', 'phone.HEIC', 'text.jpg')
    ]
    for line, word in zip(
        said,
        ('truncated', 'no value above', '0 bytes', 'floating-point', 'convert it', 'decoded'),
        strict=True,
    ):
        assert word in line
    written = {p.relative_to(out / 'masks').as_posix() for p in (out / 'masks').rglob('*.*')}
    assert written == {
        *('alpha.png', 'cmyk.png', 'deep.png', 'grey.png', 'palette.png', 'tiny.png'),
        *('plain.bmp.png', 'plain.png.png', 'turned.png'),
        *('at the Müller’s/plain.png', 'at the Müller’s/ünï 花.png'),
    }
    sizes = {name: Image.open(out / 'masks' / name).size for name in written}
    assert sizes.pop('turned.png') == (20, 28)
    assert sizes.pop('tiny.png') == (1, 1)
    assert set(sizes.values()) == {(28, 20)}
    overlays = {p.relative_to(out / 'overlays').as_posix() for p in (out / 'overlays').rglob('*.*')}
    assert overlays == {f'{name[:-4]}.jpg' for name in written}
    assert not [path for path in out.rglob('*') if path.suffix == '.tmp']


def test_masks_are_the_models(infer, segmentor, photos):
    """Values, palette and size against a direct call."""
    config, _, model = segmentor
    infer(photos)
    palette = np.array(load_config(str(config)).metainfo.palette)
    folder = photos.parent / 'out' / 'masks'
    originals = {'turned.png': 'turned.jpg', 'grey.png': 'grey.png', 'alpha.png': 'alpha.png'}
    for name, original in originals.items():
        mask = Image.open(folder / name)
        assert mask.mode == 'P'
        expected = direct(model, photos / original)
        assert len(np.unique(expected)) > 2
        assert (np.asarray(mask) == expected).all(), name
        assert (np.asarray(mask.convert('RGB')) == palette[expected]).all(), name


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(tmp_path, suffix, orientation):
    exif, path = Image.Exif(), tmp_path / f'image.{suffix}'
    exif[ExifTags.Base.Orientation] = orientation
    colours(16, 32).save(path, exif=exif, **(dict(lossless=True) if suffix == 'webp' else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    difference = read_picture(path)[..., ::-1].astype(int) - expected
    assert np.abs(difference).max() <= 2  # JPEG decoders differ in rounding


def test_kinds_of_pixels(photos):
    grey = np.asarray(Image.open(photos / 'grey.png'))
    for name in ('grey.png', 'deep.png'):
        assert (read_picture(photos / name) == grey[..., None]).all()
    plain = read_picture(photos / 'plain.png').astype(int)
    assert (read_picture(photos / 'alpha.png') == plain).all()
    assert np.abs(read_picture(photos / 'cmyk.jpg') - plain).mean() < 6


def test_find_pictures(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    names = [picture.name for picture in find_pictures(['photos/at*/*.jpg', 'photos/grey.png'])]
    assert names == ['at the Müller’s/ünï 花', 'grey']
    assert [p.name for p in find_pictures(['photos/**/plain.png'])] == [
        *('at the Müller’s/plain', 'plain')
    ]
    assert len(find_pictures(['photos', 'photos/grey.png'])) == len(find_pictures(['photos']))
    below = photos / 'at the Müller’s'
    assert len(find_pictures(['photos'], [below])) == len(find_pictures(['photos'])) - 2
    (photos / 'none').mkdir()
    for wrong, error in (
        ('photos/none', 'has no image'),
        ('photos/x.jpg', 'there is no file'),
        ('photos/*.gif', 'no image matches'),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=error):
            find_pictures([wrong])


def test_out_inside_the_folder(main, segmentor, photos):
    """Results of an earlier run are no pictures."""
    config, checkpoint, _ = segmentor
    folder = photos / 'at the Müller’s'
    arguments = [str(folder), '--config', str(config), '--checkpoint', str(checkpoint)]
    for _ in range(2):
        assert main([*arguments, '--out', str(folder / 'out')]) == 0
    assert len(list((folder / 'out' / 'masks').iterdir())) == 2


def masks_of(out) -> np.ndarray:
    return np.asarray(Image.open(out / 'masks' / 'image.png'))


def test_windows(infer, main, segmentor, tmp_path, monkeypatch, capsys):
    """One window is the whole picture; more are mmseg's slide mode; large ones are split."""
    path = tmp_path / 'image.png'
    colours(40, 64).save(path)
    whole = masks_of(infer(path)[1])
    assert (masks_of(infer(path, options=['--window', '64'])[1]) == whole).all()
    windows = masks_of(infer(path, options=['--window', '24', '--stride', '16'])[1])
    assert (windows != whole).any()
    slide = ['--cfg-options', 'model.test_cfg.mode=slide']
    slide += ['model.test_cfg.crop_size=(24,24)', 'model.test_cfg.stride=(16,16)']
    assert (masks_of(infer(path, options=slide)[1]) == windows).all()
    assert 'were split' not in capsys.readouterr().out
    monkeypatch.setattr(inference, '_MOST_WHOLE', 40 * 64 - 1)
    size = ['--cfg-options', 'model.data_preprocessor.size=(24,24)']
    split = masks_of(infer(path, options=size)[1])
    assert 'were split into windows of 24 pixels' in capsys.readouterr().out
    assert (split == windows).all()  # two thirds of 24
    with pytest.raises(ValueError, match='take a multiple of 8, such as 24'):
        infer(path, options=['--window', '30'])
    with pytest.raises(ValueError, match='leaves gaps'):
        infer(path, options=['--window', '24', '--stride', '25'])


def test_strips(infer, tmp_path, monkeypatch):
    """Resizing by strips gives what resizing at once gives."""
    path = tmp_path / 'image.png'
    colours(50, 70).save(path)
    expected = masks_of(infer(path)[1])
    monkeypatch.setattr(inference, '_MOST_LOGITS', 0)
    monkeypatch.setattr(inference, '_STRIP', 3000)
    assert (masks_of(infer(path)[1]) == expected).all()


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(37, 23), (4, 60), (1, 1)])
def test_resized_argmax(align_corners, size, monkeypatch):
    monkeypatch.setattr(inference, '_STRIP', 500)
    logits = torch.randn(7, 9, 13)
    resized = F.interpolate(logits[None], size, mode='bilinear', align_corners=align_corners)[0]
    top = resized.topk(2, dim=0)
    found = inference._resized_argmax(logits, size, align_corners)
    clear = (top.values[0] - top.values[1] > 1e-5).numpy()
    assert (found == top.indices[0].numpy())[clear].all()


@pytest.fixture
def nameless(segmentor, tmp_path):
    """A config and a checkpoint without class names."""
    config, _, model = segmentor
    checkpoint = tmp_path / 'bare.pth'
    torch.save(model.state_dict(), checkpoint)
    (tmp_path / 'nameless.py').write_text(
        f'_base_ = {str(config)!r}\nname = dict(metainfo=dict(_delete_=True))\n'
        'test_dataloader = dict(dataset=name)\n'
    )
    colours().save(tmp_path / 'image.png')
    return dict(config=tmp_path / 'nameless.py', checkpoint=checkpoint)


def test_class_names(infer, nameless, tmp_path):
    path, names = tmp_path / 'image.png', tmp_path / 'classes.txt'
    with pytest.raises(ValueError, match='give --classes FILE'):
        infer(path, **nameless)
    assert not (tmp_path / 'out').exists()
    names.write_text('one\ntwo\n')
    with pytest.raises(ValueError, match='predicts 11 classes, and 2 are named'):
        infer(path, **nameless, options=['--classes', str(names)])
    names.write_text('one\n\ntwo\n')
    with pytest.raises(ValueError, match='line 2 is empty'):
        infer(path, **nameless, options=['--classes', str(names)])
    names.write_text('\n'.join(f'größe {i}' for i in range(11)), encoding='utf-8')
    assert infer(path, **nameless, options=['--classes', str(names)])[0] == 0


def test_other_checkpoint(infer, tmp_path, root, capsys):
    """Strict, as tools/test.py."""
    _, model = build(root / 'configs' / 'demo' / 'vit_segment.py')
    torch.save(model.state_dict(), tmp_path / 'other.pth')
    colours().save(tmp_path / 'image.png')
    with pytest.raises(ValueError, match='does not fit EncoderDecoder with LocAtViT'):
        infer(tmp_path / 'image.png', checkpoint=tmp_path / 'other.pth')
    assert 'ERROR: ' in capsys.readouterr().err


def test_classifier(infer, root, tmp_path, photos):
    _, model = build(root / CLASSIFY)
    checkpoint, names = tmp_path / 'classifier.pth', [f'digit {i}' for i in range(10)]
    meta = dict(dataset_meta=dict(classes=names))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    status, out = infer(photos, config=root / CLASSIFY, checkpoint=checkpoint)
    assert status == 3
    results = json.loads((out / 'predictions.json').read_text(encoding='utf-8'))
    assert len(results) == 10  # one pixel is smaller than a patch, and nothing resizes it here
    found = next(result for result in results if result['image'] == 'grey')
    pixels = torch.tensor(np.asarray(Image.open(photos / 'grey.png').convert('RGB')).copy())
    with torch.no_grad():
        features = model.extract_feat((pixels.permute(2, 0, 1).float()[None] - 127.5) / 64)
        scores, order = model.head(features)[0].softmax(0).topk(5)
    assert [top['label'] for top in found['predictions']] == order.tolist()
    assert [top['name'] for top in found['predictions']] == [names[i] for i in order]
    given = torch.tensor([top['score'] for top in found['predictions']])
    torch.testing.assert_close(given, scores, atol=2e-6, rtol=0)
    with open(out / 'predictions.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert [row['rank'] for row in rows[:5]] == list('12345')
    with pytest.raises(ValueError, match='for segmentation'):
        infer(photos, config=root / CLASSIFY, checkpoint=checkpoint, options=['--window', '8'])


@pytest.mark.parametrize(
    'config',
    [
        'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        'mmpretrain::resnet/resnet18_8xb32_in1k.py',
    ],
)
def test_stock(infer, config, tmp_path):
    """Names and colours are those of the data set's class."""
    path = config_path(config)
    _, model = build(path, **{'norm_cfg.type': 'BN', 'model.pretrained': None})
    torch.save(model.state_dict(), tmp_path / 'stock.pth')
    colours(48, 64).save(tmp_path / 'image.png')
    status, out = infer(tmp_path / 'image.png', config=path, checkpoint=tmp_path / 'stock.pth')
    assert status == 0
    if config.startswith('mmseg'):
        mask = Image.open(out / 'masks' / 'image.png')
        assert mask.size == (64, 48)
        assert mask.getpalette()[:3] == [120, 120, 120]
    else:
        (result,) = json.loads((out / 'predictions.json').read_text())
        assert len(result['predictions']) == 5


def test_arguments(infer, tmp_path, root):
    colours().save(tmp_path / 'image.png')
    for options in (['--opacity', '2'], ['--window', '0'], ['--stride', '8']):
        with pytest.raises(SystemExit):
            infer(tmp_path / 'image.png', options=options)
    config = root / 'configs' / 'demo' / 'in_context_vit.py'
    with pytest.raises(ValueError, match='use tools/segment.py'):
        infer(tmp_path / 'image.png', config=config)
