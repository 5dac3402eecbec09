"""tools/segment.py: masks against a plain computation, scores, and what users get wrong."""

import json
import os
import runpy
import shutil

import cv2
import numpy as np
import pytest
import timm
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import ExifTags, Image
from torch.nn import functional as F

from locat_mm.cli.in_context import timm_backbone
from locat_mm.config import config_path, load_config

NAME = 'test_vit.r160_in1k'  # of timm, patches of 16
SIZE = 96


def scene(seed: int, height: int = 80, width: int = 112) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball and a blue box on grey, and their classes."""
    draw = np.random.default_rng(seed)
    image = draw.integers(60, 80, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    y, x = draw.integers(25, height - 25), draw.integers(25, width - 25)
    ball = (rows - y) ** 2 + (columns - x) ** 2 < 400
    box = (abs(rows - height // 2) < 14) & (columns < 30)
    for label, where, colour in ((1, ball, (220, 200, 40)), (2, box, (30, 60, 200))):
        image[where], mask[where] = colour, label
    mask[:2] = 255
    return image, mask


@pytest.fixture(scope='module')
def main(root):
    return runpy.run_path(str(root / 'tools' / 'segment.py'))['main']


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'vit.pth'
    torch.save(timm.create_model(NAME).state_dict(), path)
    return path


@pytest.fixture
def place(tmp_path):
    """Examples and new pictures with masks; one of them lies in a subfolder."""
    for part, seeds in (('few', (0, 1, 2)), ('new', (3, 4))):
        for seed in seeds:
            image, mask = scene(seed)
            name = 'below/4.png' if seed == 4 else f'{seed}.png'
            for kind, pixels in (('images', image), ('masks', mask)):
                path = tmp_path / part / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (tmp_path / 'classes.txt').write_text('background\nball\nbox\n')
    return tmp_path


@pytest.fixture
def segment(main, weights, place, monkeypatch):
    """Run the tool in the folder of the pictures; return its exit status."""
    monkeypatch.chdir(place)
    vit = ('--backbone', f'timm:{NAME}', '--weights', str(weights), '--size', str(SIZE))

    def segment(*options, backbone=vit, images=('new/images',)):
        common = ['--examples', 'few/images', 'few/masks', '--out', 'out', '--device', 'cpu']
        return main([*common, '--images', *images, *map(str, backbone), *map(str, options)])

    return segment


def mask_of(name: str) -> np.ndarray:
    return np.asarray(Image.open(f'out/masks/{name}.png'))


@torch.no_grad()
def by_hand(features, mean, std, size, patch, neighbours, temperature) -> np.ndarray:
    """Masks of the picture new/images/3.png, from loops over patches."""

    def rows_of(path):
        image = cv2.resize(cv2.imread(path), (size, size), interpolation=cv2.INTER_LINEAR)
        pixels = torch.tensor(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)
        scaled = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        return F.normalize(features(scaled[None])[0].flatten(1).T, dim=1)  # [patches, D]

    bank, shares = [], []
    for index in range(3):
        mask = cv2.imread(f'few/masks/{index}.png', cv2.IMREAD_GRAYSCALE)
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
        for row, feature in enumerate(rows_of(f'few/images/{index}.png')):
            top, left = patch * (row // (size // patch)), patch * (row % (size // patch))
            pixels = mask[top : top + patch, left : left + patch]
            counts = torch.tensor([float((pixels == label).sum()) for label in range(3)])
            if counts.sum():
                bank.append(feature)
                shares.append(counts / counts.sum())
    bank, shares = torch.stack(bank), torch.stack(shares)
    votes = []
    for query in rows_of('new/images/3.png'):
        nearest, at = (bank @ query).sort(descending=True)
        weights = (nearest[:neighbours] / temperature).softmax(0)
        votes.append(weights @ shares[at[:neighbours]])
    grid = torch.stack(votes).T.view(1, 3, size // patch, size // patch)
    for shape in ((size, size), (80, 112)):
        grid = F.interpolate(grid, shape, mode='bilinear')
    return grid[0].argmax(0).numpy()


def test_against_a_plain_computation(segment, weights, capsys):
    options = ('--neighbours', 5, '--temperature', 0.05, '--classes', 'classes.txt')
    assert segment(*options, '--masks', 'new/masks') == 0
    model = timm.create_model(NAME, dynamic_img_size=True)
    model.load_state_dict(torch.load(weights))
    model.eval()

    def features(x):
        return model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]

    scale = timm.get_pretrained_cfg(NAME)
    mean, std = ([255 * x for x in values] for values in (scale.mean, scale.std))
    expected = by_hand(features, mean, std, SIZE, 16, 5, 0.05)
    assert len(np.unique(expected)) == 3
    assert (mask_of('3') == expected).mean() > 0.9999  # ties by rounding
    # Scores by counting pixels.
    pairs = [(mask_of('3'), scene(3)[1]), (mask_of('below/4'), scene(4)[1])]
    ious = []
    for label in range(3):
        both = sum(((p == label) & (t == label)).sum() for p, t in pairs)
        either = sum((((p == label) & (t != 255)) | (t == label)).sum() for p, t in pairs)
        ious.append(100 * both / either)
    scores = json.load(open('out/scores.json'))
    assert scores['images'] == 2
    found = [scores['classes'][name]['IoU'] for name in ('background', 'ball', 'box')]
    assert found == pytest.approx(ious, abs=0.01)
    assert scores['mIoU'] == pytest.approx(np.mean(ious), abs=0.01)
    assert f'mIoU {scores["mIoU"]}' in capsys.readouterr().out
    overlay = Image.open('out/overlays/below/4.jpg')
    assert overlay.size[0] > 112


@pytest.mark.parametrize('kind', ['ours', 'stock', 'segmentor'])
def test_backbone_of_a_config(segment, place, root, kind):
    """The same backbone called directly; its weights in a checkpoint of the whole model."""
    if kind == 'stock':  # of mmpretrain
        path = place / 'stock.py'
        vit = dict(
            type='VisionTransformer',
            arch=dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48),
            img_size=32,
            patch_size=8,
        )
        head = dict(type='VisionTransformerClsHead', num_classes=3, in_channels=24)
        model_cfg = dict(type='ImageClassifier', backbone=vit, head=head)
        path.write_text(f"default_scope = 'mmpretrain'\nmodel = {model_cfg}\n")
    else:
        name = 'classify' if kind == 'ours' else 'segment'
        path = root / 'configs' / 'demo' / f'locatvit_{name}.py'
    cfg = load_config(str(path))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save(model.state_dict(), 'model.pth')
    backbone = ('--config', path, '--checkpoint', 'model.pth', '--size', 64)
    assert segment('--neighbours', 5, backbone=backbone) == 0
    cfg.model.backbone.update(out_type='featmap')
    if kind != 'stock':
        cfg.model.backbone.update(final_norm=False, init_cfg=None)
    direct = MODELS.build(cfg.model.backbone)
    direct.eval()  # mmpretrain's returns None
    direct.load_state_dict(model.backbone.state_dict(), strict=False)  # its final norm is left out
    mean, std = [127.5] * 3, [64.0] * 3
    if kind == 'stock':
        mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    expected = by_hand(lambda x: direct(x)[-1], mean, std, 64, 8, 5, 0.02)
    assert (mask_of('3') == expected).mean() > 0.9999


def test_prefix_and_attach(segment, weights, place, root):
    """Weights under a prefix; GAug that starts as the identity changes no mask."""
    assert segment() == 0
    plain = mask_of('3')
    assert segment('--attach', 'identity') == 0
    assert (mask_of('3') == plain).mean() > 0.99
    features = []
    for start in (None, 'identity', 'paper'):
        backbone, _, size = timm_backbone(NAME, str(weights), start)
        assert size == 160
        with torch.no_grad():
            features.append(backbone(torch.rand(1, 3, 64, 64).fill_(0.5).cumsum(3))[0])
    torch.testing.assert_close(features[0], features[1], atol=1e-3, rtol=0)
    assert (features[0] - features[2]).abs().max() > 1e-3
    path = root / 'configs' / 'demo' / 'locatvit_classify.py'
    cfg = load_config(str(path))
    init_default_scope(cfg.default_scope)
    state = MODELS.build(cfg.model).backbone.state_dict()
    torch.save({f'teacher.{key}': value for key, value in state.items()}, 'teacher.pth')
    backbone = ('--config', path, '--checkpoint', 'teacher.pth', '--size', 48)
    assert segment('--prefix', 'teacher', backbone=backbone) == 0
    with pytest.raises(ValueError, match="no key that starts with 'student.'"):
        segment('--prefix', 'student', backbone=backbone)


def test_stock_segmentor_must_fit(segment, place):
    """Stock backbones are loaded strictly, too."""
    path = config_path('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py')
    cfg = load_config(path)
    init_default_scope('mmseg')
    state = MODELS.build(cfg.model.backbone).state_dict()
    torch.save({f'backbone.{key}': value for key, value in state.items()}, 'mit.pth')
    backbone = ('--config', path, '--checkpoint', 'mit.pth', '--size', 64)
    assert segment('--neighbours', 3, backbone=backbone) == 0
    state.popitem()
    torch.save(state, 'mit.pth')
    with pytest.raises(ValueError, match='missing'):
        segment(backbone=backbone)


def test_odd_pictures(segment, place, capsys):
    """One line each, and the rest is done; the masks of turned pictures are of their size."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 8
    Image.fromarray(scene(5)[0]).save('new/images/turned 花.jpg', exif=turned)
    Image.fromarray(scene(5)[0]).convert('L').save('new/images/grey.png')
    (place / 'new' / 'images' / 'text.jpg').write_text('a text')
    Image.fromarray(np.full((80, 112), 7, np.uint8)).save('new/masks/grey.png')
    assert segment('--masks', 'new/masks') == 3
    printed = capsys.readouterr()
    assert 'FAILED: new/images/text.jpg cannot be decoded' in printed.err
    assert 'FAILED: new/masks/grey.png has the value 7' in printed.err
    assert json.load(open('out/scores.json'))['images'] == 2
    assert mask_of('turned 花').shape == (112, 80)
    assert '3 examples, 3 classes: class_0, class_1, class_2' in printed.out


def replace_mask(pixels, name: str = '1.png') -> None:
    Image.fromarray(pixels).save(f'few/masks/{name}')


def as_jpeg():
    shutil.rmtree('few/masks')
    os.mkdir('few/masks')
    for seed in range(3):
        replace_mask(scene(seed)[1], f'{seed}.jpg')


def empty():
    for seed in range(3):
        os.remove(f'few/masks/{seed}.png')


def binary():
    for seed in range(3):
        replace_mask(np.where(scene(seed)[1] > 0, 255, 0).astype(np.uint8), f'{seed}.png')


def damaged():
    content = open('few/masks/1.png', 'rb').read()
    open('few/masks/1.png', 'wb').write(content[: len(content) // 2])


@pytest.mark.parametrize(
    'spoil, message',
    [
        (as_jpeg, r'few/masks/0.jpg is a JPEG'),
        (empty, 'few/masks has no mask'),
        (lambda: os.remove('few/masks/1.png'), '1 of 3 example images have no mask'),
        (lambda: replace_mask(scene(1)[0]), r'1.png has mode RGB.*colour_masks.py'),
        (lambda: replace_mask(scene(1)[1] + 4), r'1.png has the value \d.* 3 classes'),
        (lambda: replace_mask(scene(1)[1].T), '1.png has 80×112 pixels and its image'),
        (binary, 'write 1 instead'),
        (damaged, '1.png cannot be read as a mask'),
        (lambda: shutil.copy('few/masks/1.png', 'few/masks/1.tif'), 'has several masks'),
    ],
)
def test_bad_examples(segment, spoil, message):
    """One clear error, and nothing is written."""
    spoil()
    with pytest.raises(ValueError, match=message):
        segment('--classes', 'classes.txt')
    assert not os.path.exists('out')


def test_bad_arguments(segment, place, weights):
    vit = ('--backbone', f'timm:{NAME}', '--weights', weights)
    for backbone in ((), ('--backbone', NAME), ('--config', 'x.py'), (*vit, '--config', 'x.py')):
        with pytest.raises(SystemExit):
            segment(backbone=backbone)
    with pytest.raises(SystemExit):
        segment('--prefix', 'x')
    with pytest.raises(ValueError, match='take 96 or 112'):
        segment(backbone=(*vit, '--size', 100))
    with pytest.raises(ValueError, match='TIMMBackbone is for transformers'):
        segment(backbone=('--backbone', 'timm:resnet18', '--weights', weights))
    with pytest.raises(ValueError, match='has no model'):
        segment(backbone=('--backbone', 'timm:vit_large_patch3', '--weights', weights))
    with pytest.raises(FileNotFoundError, match='no folder of masks'):
        segment('--masks', 'nowhere')
    with pytest.raises(ValueError, match='num_neighbours=999 is more than'):
        segment('--neighbours', 999)
    (place / 'short.txt').write_text('background\nball\n')
    with pytest.raises(ValueError, match='has the value 2, and there are 2 classes'):
        segment('--classes', 'short.txt')


def test_mask_suffix(segment, place):
    """Masks beside the images, named after them."""
    for part in ('few', 'new'):
        for path in (place / part / 'masks').rglob('*.png'):
            target = place / part / 'images' / path.relative_to(place / part / 'masks')
            shutil.move(path, target.with_name(f'{target.stem}_mask.png'))
    beside = ('--examples', 'few/images', 'few/images', '--mask-suffix', '_mask.png')
    assert segment(*beside, '--masks', 'new/images') == 0
    masks = {path.name for path in (place / 'out' / 'masks').rglob('*.png')}
    assert masks == {'3.png', '4.png'}
    assert json.load(open('out/scores.json'))['images'] == 2
