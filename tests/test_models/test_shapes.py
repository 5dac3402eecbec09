"""Unusual shapes: one image, one pixel, one row of patches, very many patches."""

import pytest
import torch
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.registry import DefaultScope
from PIL import Image
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from locat_mm.config import load_config
from locat_mm.models.backbones import LocAtJumbo, LocAtRoPEViT, LocAtSwin, LocAtViT
from locat_mm.models.building import build_model
from locat_mm.ops import gaussian_attention
from tests.support import demo_config

GRIDS = [(1, 7), (7, 1), (1, 1)]


def build_demo(name, **changes):
    cfg = load_config(str(demo_config(name)), {'model.backbone.init_cfg': None, **changes})
    DefaultScope.get_instance(name, scope_name=cfg.default_scope)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    return build_model(cfg).eval(), pipeline


def read(pipeline, folder, rows, columns):
    """One image file, and its mask, through a test pipeline."""
    pixels = torch.arange(rows * columns * 3).view(rows, columns, 3) % 251
    Image.fromarray(pixels.byte().numpy()).save(folder / 'image.png')
    Image.new('L', (columns, rows)).save(folder / 'mask.png')
    paths = dict(img_path=str(folder / 'image.png'), seg_map_path=str(folder / 'mask.png'))
    return pipeline(dict(paths, gt_label=3, reduce_zero_label=False, seg_fields=[]))


@pytest.mark.parametrize('size', [(1, 40), (40, 1), (1, 1), (5, 3)], ids=str)
def test_scenes_smaller_than_a_patch(size, tmp_path):
    """They are padded to patches, and the map is the image's size."""
    model, pipeline = build_demo('locatvit_segment')
    sample = model.test_step(pseudo_collate([read(pipeline, tmp_path, *size)]))[0]
    assert sample.pred_sem_seg.shape == size
    assert sample.seg_logits.data.isfinite().all()
    assert sample.seg_logits.data.std() > 0


@pytest.mark.parametrize('family', ['vit', 'ropevit', 'jumbo', 'swin'])
def test_objects_smaller_than_a_patch(family, tmp_path):
    """Nothing pads them; the error says what is wrong."""
    name = 'locatvit_classify' if family == 'vit' else f'families/locat{family}_classify'
    model, pipeline = build_demo(name)
    for size in [(1, 40), (40, 1)]:
        batch = default_collate([read(pipeline, tmp_path, *size)])
        with pytest.raises(ValueError, match=rf'image of {size[0]}×{size[1]} pixels is smaller th'):
            model.test_step(batch)
    for size in [(8, 40), (40, 8)]:  # one row or column of patches
        (sample,) = model.test_step(default_collate([read(pipeline, tmp_path, *size)]))
        assert sample.pred_score.sum().item() == pytest.approx(1)


@pytest.mark.parametrize('name', ['locatvit_classify', 'locatvit_segment'])
def test_a_batch_of_one_trains(name, tmp_path):
    model, pipeline = build_demo(name, **{'model.backbone.frozen': False})
    collate = default_collate if 'classify' in name else pseudo_collate
    batch = model.data_preprocessor(collate([read(pipeline, tmp_path, 48, 48)]), training=True)
    loss, _ = model.train().parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def reference(q, k, v, variance, alpha, grid):
    """The paper's formula, one query and one key at a time."""
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    logits = q @ k.mT * q.shape[-1] ** -0.5
    bias = torch.zeros_like(logits)
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            exponent = sum(
                (a[axis] - b[axis]) ** 2 / (2 * (variance[:, :, i, axis] + 0.1)) for axis in (0, 1)
            )
            bias[:, :, 1 + i, 1 + j] = alpha[:, :, i] * torch.exp(-exponent)
    return (logits + bias).softmax(-1) @ v


@pytest.mark.parametrize('backend', ['chunked', 'triton', 'eager', 'naive'])
@pytest.mark.parametrize('grid', GRIDS, ids=str)
def test_one_row_of_patches(grid, backend, device):
    dtype = torch.float if backend == 'triton' else torch.double
    size, place = grid[0] * grid[1], dict(device=device, dtype=dtype)
    if backend == 'chunked':
        place['device'] = 'cpu'
    shapes = [(2, 2, 1 + size, 16)] * 3 + [(2, 2, size, 2), (2, 2, size)]
    inputs = [torch.rand(*shape, **place).add(0.1).requires_grad_() for shape in shapes]
    weight = torch.randn(2, 2, 1 + size, 16, **place)
    results = []
    for function in (
        lambda *args: gaussian_attention(*args, grid, 1, backend=backend),
        lambda *args: reference(*args, grid),
    ):
        output = function(*inputs)
        results.append([output, *torch.autograd.grad((output * weight).sum(), inputs)])
    tolerance = dict(rtol=1e-4, atol=1e-5) if backend == 'triton' else dict(rtol=1e-9, atol=1e-10)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **tolerance)


FAMILIES = {
    'vit': (LocAtViT, dict(arch=dict(embed_dim=32, depth=2, num_heads=2), patch_size=8)),
    'ropevit': (LocAtRoPEViT, dict(arch=dict(embed_dim=32, depth=2, num_heads=2), patch_size=8)),
    'jumbo': (LocAtJumbo, dict(arch=dict(embed_dim=32, depth=2, num_heads=2), patch_size=8)),
    'swin': (
        LocAtSwin,
        dict(arch=dict(embed_dim=16, depths=(2, 2), num_heads=(1, 2)), patch_size=4, window_size=3),
    ),
}


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('grid', GRIDS, ids=str)
def test_families_on_one_row_of_patches(family, grid):
    """As with the naive backend, forward and backward."""
    backbone, settings = FAMILIES[family]
    images = torch.randn(2, 3, 8 * grid[0], 8 * grid[1])
    results = []
    for backend in (None, 'naive'):
        torch.manual_seed(1)
        model = backbone(
            **settings, img_size=48, gaug=True, out_type='featmap', attention_backend=backend
        )
        output = model(images)[-1]
        assert output.shape[-2:] == grid
        output.square().sum().backward()
        results.append(
            [output, *(p.grad for _, p in model.named_parameters() if p.grad is not None)]
        )
    assert len(results[0]) > 20
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() for x in tree_leaves(output) if torch.is_tensor(x)]
        self.size = max([self.size, *sizes])
        return output


@pytest.mark.parametrize('backend, is_dense', [(None, False), ('eager', True)], ids=str)
def test_4096_patches_need_no_matrix_of_them(backend, is_dense):
    """1,024² pixels, forward and backward: never 4,097² numbers at once."""
    model = LocAtViT(
        dict(embed_dim=64, depth=1, num_heads=1),
        img_size=224,
        patch_size=16,
        out_type='featmap',
        attention_backend=backend,
    )
    with Largest() as largest:
        output = model(torch.randn(1, 3, 1024, 1024))[-1]
        output.sum().backward()
    assert output.shape == (1, 64, 64, 64)
    assert (largest.size >= 4 * 4097**2) == is_dense


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_a_long_image(mode, tmp_path):
    """2,048 × 512 pixels; windows of 512 and their mean as written out here."""
    test_cfg = dict(mode=mode)
    if mode == 'slide':
        test_cfg.update(crop_size=(512, 512), stride=(384, 384))
    model, pipeline = build_demo(
        'locatvit_segment',
        **{
            'model.test_cfg': test_cfg,
            'model.backbone.patch_size': 32,
            'model.backbone.arch': dict(embed_dim=64, depth=1, num_heads=2),
        },
    )
    batch = pseudo_collate([read(pipeline, tmp_path, 512, 2048)])
    (sample,) = model.test_step(batch)
    assert sample.pred_sem_seg.shape == (512, 2048)
    images = model.data_preprocessor(batch)['inputs']
    starts, length = (range(0, 1537, 384), 512) if mode == 'slide' else ([0], 2048)
    total, count = torch.zeros(11, 512, 2048), torch.zeros(2048)
    with torch.no_grad():
        for window in (slice(start, start + length) for start in starts):
            logits = model(images[..., window], mode='tensor')
            total[..., window] += interpolate(logits, (512, length), mode='bilinear')[0]
            count[window] += 1
    torch.testing.assert_close(sample.seg_logits.data, total / count, rtol=1e-4, atol=1e-4)
