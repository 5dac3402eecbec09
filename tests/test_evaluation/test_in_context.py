"""In-context segmentation against a plain computation in NumPy."""

import json
import runpy

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from locat_mm.evaluation.in_context_segmentor import count_labels
from locat_mm.registry import MODELS
from tests.support import ROOT
from tests.support.evaluation import TINY, in_context_config, run

tool = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'in_context.py'))['main']
MAPS = TINY | dict(out_type='featmap', final_norm=False)


def patches_of(model, images: list[np.ndarray]) -> list[np.ndarray]:
    """Unit features [patches, D] of BGR images, row by row."""
    found = []
    for image in images:
        pixels = (torch.tensor(image[..., ::-1].copy()).permute(2, 0, 1).float() - 127.5) / 64.0
        with torch.no_grad():
            rows = model.backbone(pixels[None])[-1][0].flatten(1).T.double().numpy()
        found.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return found


def shares_of(mask: np.ndarray, patch: int, num_classes: int) -> np.ndarray:
    """Share of each class in the labelled pixels of each patch; nan where there are none."""
    rows = []
    for top in range(0, mask.shape[0], patch):
        for left in range(0, mask.shape[1], patch):
            pixels = mask[top : top + patch, left : left + patch].ravel()
            pixels = pixels[pixels != 255]
            counts = [np.sum(pixels == c) for c in range(num_classes)]
            rows.append(np.array(counts) / max(len(pixels), 1) if len(pixels) else [np.nan] * 3)
    return np.array(rows, dtype=float)


def read(folder, split: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    paths = sorted((folder / 'images' / split).iterdir())
    masks = [folder / 'annotations' / split / path.name for path in paths]
    images = [cv2.imread(str(path)) for path in paths]
    return images, [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in masks]


def test_against_numpy(scenes, tmp_path):
    """The shipped loop and stock IoUMetric against loops over patches and pixels."""
    runner, metrics = run(in_context_config(scenes, tmp_path))
    model = runner.model
    images, masks = read(scenes, 'training')
    bank = np.concatenate(patches_of(model, images))
    labels = np.concatenate([shares_of(mask, 8, 3) for mask in masks])
    labelled = ~np.isnan(labels[:, 0])
    assert labelled.sum() == 5 * 6 - 5  # one patch a scene has no label
    bank, labels = bank[labelled], labels[labelled]
    intersection, union = np.zeros(3), np.zeros(3)
    images, masks = read(scenes, 'validation')
    for rows, mask in zip(patches_of(model, images), masks, strict=True):
        cosines = rows @ bank.T
        predicted = []
        for cosine in cosines:
            near = np.argsort(-cosine)[:4]
            weights = np.exp(cosine[near] / 0.1)
            predicted.append((weights / weights.sum()) @ labels[near])
        shares = torch.tensor(np.array(predicted)).T.reshape(1, 3, 2, 3)
        found = F.interpolate(shares, (16, 24), mode='bilinear').argmax(1)[0].numpy()
        for c in range(3):
            ours, truth = (found == c) & (mask != 255), mask == c
            intersection[c] += np.sum(ours & truth)
            union[c] += np.sum(ours | truth)
    assert 0 < intersection.sum() < union.sum()
    assert metrics['mIoU'] == pytest.approx(100 * (intersection / union).mean(), abs=0.006)
    assert model._bank is None  # its memory is given back


def build(**options):
    """The same weights every time."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    settings = dict(num_classes=3, num_neighbours=2, temperature=0.1)
    backbone = options.pop('backbone', MAPS)
    model = MODELS.build(
        dict(type='InContextSegmentor', backbone=backbone, **{**settings, **options})
    )
    return model.eval()


def fill(model, images, masks, indices=None) -> None:
    model.start_bank(len(images))
    model.memorize(images, masks, indices or list(range(len(images))))
    model.finish_bank()


def test_predictions_have_the_size_of_the_original():
    model = build()
    fill(model, torch.randn(2, 3, 32, 32), torch.randint(3, (2, 32, 32)))
    samples = [SegDataSample(metainfo=dict(ori_shape=(50, 70), img_shape=(32, 32)))]
    (sample,) = model.predict(torch.randn(1, 3, 32, 32), samples)
    assert sample.pred_sem_seg.data.shape == (1, 50, 70)
    assert sample.seg_logits.data.shape == (3, 50, 70)
    torch.testing.assert_close(sample.seg_logits.data.sum(0), torch.ones(50, 70))
    # A patch that is in the bank, alone with its label, is found again.
    image = torch.randn(1, 3, 8, 8)
    model = build(num_neighbours=1)
    fill(model, torch.cat([image, -image]), torch.tensor([2, 1])[:, None, None].expand(2, 8, 8))
    assert model(image).flatten().tolist() == [0.0, 0.0, 1.0]
    assert 'backbone.patch_embed.proj.weight' in model.state_dict()
    assert not any('bank' in key for key in model.state_dict())


def test_swins_stage():
    swin = dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    backbone = dict(type='locat_mm.LocAtSwin', arch=swin, img_size=64, out_type='featmap')
    model = build(backbone=backbone | dict(out_indices=2))
    fill(model, torch.randn(1, 3, 64, 64), torch.randint(3, (1, 64, 64)))
    assert model._bank[0].shape == (16, 32) and model(torch.randn(1, 3, 64, 64)).shape[2:] == (4, 4)


@pytest.mark.parametrize('grid', [(2, 3), (1, 1), (8, 12)])
def test_counts_against_loops(grid):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 4, (2, 8, 12))
    masks[rng.random(masks.shape) < 0.3] = 255
    rows, columns = 8 // grid[0], 12 // grid[1]
    expected = []
    for mask in masks:
        for i in range(grid[0]):
            for j in range(grid[1]):
                part = mask[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
                expected.append([np.sum(part == c) for c in range(4)])
    found = count_labels(torch.from_numpy(masks), grid, 4)
    assert found.dtype == torch.int16
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_bounded_bank_is_a_seeded_part_of_the_whole():
    images, masks = torch.randn(3, 3, 32, 32), torch.randint(3, (3, 32, 32))
    masks[1, :, 8:] = 255  # 4 of 16 patches are left
    banks = {}
    for seed, indices in ((0, [0, 1, 2]), (1, [0, 1, 2]), (0, [7, 8, 9])):
        model = build(max_patches=17, seed=seed)
        fill(model, images, masks, indices)
        banks[seed, indices[0]] = model._bank[0]
        assert len(model._bank[0]) == 5 + 4 + 5
    model.max_patches = None
    fill(model, images, masks)
    whole = {tuple(row) for row in model._bank[0].tolist()}
    assert len(whole) == 16 + 4 + 16
    parts = [{tuple(row) for row in bank.tolist()} for bank in banks.values()]
    assert all(part < whole for part in parts)
    assert parts[0] != parts[1] and parts[0] != parts[2]
    again = build(max_patches=17)
    fill(again, images, masks)
    assert torch.equal(again._bank[0], banks[0, 0])


def test_half_precision_keeps_half_the_bytes():
    images, masks = torch.randn(1, 3, 32, 32), torch.randint(3, (1, 32, 32))
    full, half = build(), build(dtype='float16')
    fill(full, images, masks)
    fill(half, images, masks)
    assert full._bank[0].nbytes == 2 * half._bank[0].nbytes == 16 * 24 * 4
    assert full._bank[1].nbytes == 16 * 3 * 2
    torch.testing.assert_close(half(images), full(images), rtol=0, atol=0.02)


def test_classes_that_the_bank_lacks(scenes, tmp_path, monkeypatch):
    """Never predicted: IoU 0 where the ground truth has it, else nan, which mIoU leaves out."""
    folder = tmp_path / 'scenes'
    for path in (scenes / 'annotations' / 'training').iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        mask[mask == 2] = 255
        target = folder / 'annotations' / 'training' / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), mask)
    (folder / 'images').symlink_to(scenes / 'images')
    cfg = in_context_config(scenes, tmp_path)
    cfg.model.num_classes = 4  # class 3 is nowhere, class 2 not in the bank
    cfg.test_cfg.bank_dataloader.dataset.data_root = str(folder)
    cfg.test_dataloader.dataset.metainfo = dict(classes=('a', 'b', 'c', 'd'))
    seen = []
    original = IoUMetric.total_area_to_metrics
    spy = staticmethod(lambda *args, **kwargs: seen.append(original(*args, **kwargs)) or seen[-1])
    monkeypatch.setattr(IoUMetric, 'total_area_to_metrics', spy)
    _, metrics = run(cfg)
    iou = seen[0]['IoU'].tolist()
    assert iou[2] == 0 and np.isnan(iou[3]) and min(iou[:2]) > 0
    assert metrics['mIoU'] == pytest.approx(100 * (iou[0] + iou[1]) / 3, abs=0.006)


def test_tool(scenes, tmp_path, capsys):
    cfg = in_context_config(scenes, tmp_path / 'work')  # where the Runner writes config.py
    path = tmp_path / 'config.py'
    cfg.dump(str(path))
    init_default_scope('mmseg')
    state = build().backbone.state_dict()
    state = {f'teacher.module.backbone.{key}': value for key, value in state.items()}
    torch.save({'state_dict': state}, tmp_path / 'dino.pth')
    out = str(tmp_path / 'metrics.json')
    arguments = [str(path), str(tmp_path / 'dino.pth'), '--prefix', 'teacher.module.backbone']
    tool([*arguments, '--max-patches', '12', '--out', out, '--show-dir', str(tmp_path / 'shown')])
    assert 0 < json.loads((tmp_path / 'metrics.json').read_text())['mIoU'] < 100
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 3
    with pytest.raises(ValueError, match='names no weights in model.backbone: give CHECKPOINT'):
        tool([str(path)])
    segment = str(ROOT / 'configs' / 'demo' / 'vit_segment.py')
    with pytest.raises(ValueError, match='has no InContextSegmentor, but EncoderDecoder'):
        tool([segment])
    with pytest.raises(SystemExit):
        tool([str(path), '--prefix', 'backbone.'])
    assert '--prefix needs CHECKPOINT' in capsys.readouterr().err


def test_bad_input_is_one_clear_error():
    images = torch.randn(1, 3, 16, 16)
    labelled, ignored = torch.zeros(1, 16, 16), torch.full((1, 16, 16), 255)
    with pytest.raises(ValueError, match='the bank is empty: test with'):
        build()(images)
    for masks, count in ((labelled, 4), (ignored, 0)):
        with pytest.raises(ValueError, match=f'num_neighbours=30 is more than the {count} patches'):
            fill(build(num_neighbours=30), images, masks)
    with pytest.raises(ValueError, match='class 3 is outside the 3 classes'):
        fill(build(), images, labelled + 3)
    with pytest.raises(ValueError, match='LoadAnnotations stands before Resize'):
        fill(build(), images, torch.zeros(1, 20, 20))
    for side in (12, 20):  # the backbone pads them to 16 and 24
        with pytest.raises(ValueError, match=rf'does not tile an image of \[16, {side}\] pixels'):
            fill(build(), torch.randn(1, 3, 16, side), torch.zeros(1, 16, side))
    with pytest.raises(ValueError, match='masks of 16×12 pixels do not split into 2×5 patches'):
        count_labels(torch.zeros(1, 16, 12), (2, 5), 3)
    with pytest.raises(ValueError, match='max_patches=2 gives none to each of 3 images'):
        build(max_patches=2).start_bank(3)
    with pytest.raises(
        ValueError, match=r"LocAtViT gives \[1, 24\]: set the .* out_type='featmap'"
    ):
        fill(build(backbone=TINY | dict(out_type='cls_token')), images, labelled)
    for wrong in (dict(num_classes=1), dict(num_neighbours=0), dict(temperature=0)):
        with pytest.raises(ValueError, match='at least two classes, one neighbour'):
            build(**wrong)
    with pytest.raises(ValueError, match="kept as 'float32' or 'float16', got 'bf16'"):
        build(dtype='bf16')
    with pytest.raises(RuntimeError, match='nothing to train'):
        build().loss(images, [])


def test_bad_settings_of_the_loop_are_one_clear_error(scenes, tmp_path):
    cfg = in_context_config(scenes, tmp_path)
    del cfg.test_cfg.bank_dataloader.dataset.pipeline[1:3]
    with pytest.raises(ValueError, match='the pipeline of bank_dataloader needs LoadAnnotations'):
        run(cfg)
    cfg = in_context_config(scenes, tmp_path)
    cfg.model = dict(
        type='EncoderDecoder',
        backbone=MAPS,
        decode_head=dict(type='locat_mm.LinearSegHead', in_channels=24, channels=8, num_classes=3),
    )
    with pytest.raises(TypeError, match='tests an InContextSegmentor, got a EncoderDecoder'):
        run(cfg)
