"""The recipes: data, optimizer, schedule, held to the authors' code and to the paper."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from locat_mm.engine import build_runner
from locat_mm.registry import MODELS
from tests.support.shipped import FAMILIES, build_on_meta, leaf, load, shrink


def steps(pipeline: list) -> dict:
    """Transforms by type; of a RandomChoice, the list of what may be chosen."""
    found = {}
    for step in pipeline:
        if step['type'] == 'RandomChoice':
            choices = [option[0] for option in step['transforms']]
            found[choices[0]['type']] = choices
        else:
            found[step['type']] = step
    return found


def test_imagenet_recipe():
    cfg = load('locat/locatvit_tiny_imagenet.py')
    train, test = steps(cfg.train_pipeline), steps(cfg.test_pipeline)
    for name in ('RandomResizedCrop', 'RandAugment'):
        found = {(c.get('hparams') or c)['interpolation'] for c in train[name]}
        assert found == {'bilinear', 'bicubic'}, name
    assert tuple(train['RandomResizedCrop'][0]['crop_ratio_range']) == (0.08, 1.0)
    policy = train['RandAugment'][0]
    assert policy['policies'] == 'timm_increasing'
    assert (policy['magnitude_level'], policy['magnitude_std']) == (9, 0.5)
    assert train['RandomFlip']['prob'] == 0.5
    assert (train['RandomErasing']['erase_prob'], train['RandomErasing']['mode']) == (0.25, 'rand')
    assert test['ResizeEdge']['interpolation'] == 'bicubic'
    assert round(224 / test['ResizeEdge']['scale'], 1) == 0.9
    augments = {a['type']: a['alpha'] for a in cfg.model.train_cfg.augments}
    assert augments == {'Mixup': 0.8, 'CutMix': 1.0}
    loss = cfg.model.head.loss
    assert (loss.label_smooth_val, loss.mode) == (0.1, 'original')
    assert cfg.model.data_preprocessor.mean == cfg.model.data_preprocessor.std == [127.5] * 3
    backbone = cfg.model.backbone
    assert (backbone.drop_path_rate, backbone.gaug, backbone.out_type) == (0.1, True, 'raw')
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024


@pytest.mark.parametrize('family', ['swin', 'ropevit'])
def test_imagenet_statistics_of_swin_and_ropevit(family):
    """Fills follow mean and std; nothing else differs from the other families' recipe."""
    cfg, plain = load(leaf(family, 'tiny', 'imagenet')), load('vit/vit_tiny_imagenet.py')
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    for ours, theirs in zip(cfg.train_pipeline, plain.train_pipeline, strict=True):
        if ours['type'] == 'RandomErasing':
            # BGR, as the pipeline's pixels are; the preprocessor's numbers are RGB
            assert ours['fill_color'] == [round(m) for m in cfg.model.data_preprocessor.mean[::-1]]
            assert ours['fill_std'] == cfg.model.data_preprocessor.std[::-1]
            ours = {**ours, 'fill_color': theirs['fill_color'], 'fill_std': theirs['fill_std']}
        elif 'RandAugment' in str(ours):
            for (step,), (reference,) in zip(ours.transforms, theirs.transforms, strict=True):
                assert step.hparams.pad_val == [104, 116, 124]
                step.hparams.pad_val = reference.hparams.pad_val
        assert ours == theirs


@pytest.mark.parametrize('task', ['ade20k', 'cocostuff', 'pcontext'])
def test_linear_decoding_recipe(task):
    cfg = load(f'locat/locatvit_tiny_{task}.py')
    train, test = steps(cfg.train_pipeline), steps(cfg.test_pipeline)
    side, scale = (480, (520, 520)) if task == 'pcontext' else (512, (2048, 512))
    resize, crop = train['RandomResize'], train['RandomCrop']
    assert (tuple(resize['scale']), tuple(resize['ratio_range'])) == (scale, (0.5, 2.0))
    assert (tuple(crop['crop_size']), crop['cat_max_ratio']) == ((side, side), 0.75)
    assert tuple(cfg.model.data_preprocessor.size) == (side, side)
    assert train['RandomFlip']['prob'] == 0.5 and 'PhotoMetricDistortion' in train
    assert tuple(test['Resize']['scale']) == scale
    assert test['Resize']['keep_ratio'] and 'RandomFlip' not in test
    # COCO-Stuff has no background class to drop.
    for pipeline in (train, test):
        reduces = pipeline['LoadAnnotations'].get('reduce_zero_label', False)
        assert reduces == (task != 'cocostuff')
    assert cfg.model.test_cfg.mode == 'whole'
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.train_cfg.max_iters == 20000
    head = cfg.model.decode_head
    assert (head.channels, head.num_classes) == (512, cfg.num_classes)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, tuple(optimizer.betas)) == ('AdamW', 1e-3, (0.9, 0.999))
    assert optimizer.weight_decay == 0.01


def optimizer_of(cfg: Config, model: torch.nn.Module):
    """What mmengine builds; AMP needs an accelerator."""
    settings = Config(dict(wrapper={**cfg.optim_wrapper, 'type': 'OptimWrapper'}))
    return build_optim_wrapper(model, settings.wrapper)


def by_name(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    """Parameter name -> its group."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group['params']}


#: more than one axis and yet without weight decay
UNDECAYED = ('pos_embed', 'cls_token', 'relative_position_bias_table', 'rope.freqs')


@pytest.mark.parametrize('family', [*FAMILIES, *(f'locat{family}' for family in FAMILIES)])
def test_imagenet_decays_what_the_authors_decay(family):
    name = leaf(family, 'tiny', 'imagenet')
    cfg = load(name, shrink(name))
    model = MODELS.build(cfg.model)
    wrapper = optimizer_of(cfg, model)
    assert wrapper.clip_grad_kwargs['max_norm'] == 5.0
    groups = by_name(model, wrapper.optimizer)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    met = set()
    for key, parameter in model.named_parameters():
        special = [end for end in UNDECAYED if key.endswith(end)]
        met.update(special)
        free = parameter.ndim == 1 or bool(special)
        assert groups[key]['weight_decay'] == (0.0 if free else 0.05), key
        assert groups[key]['lr'] == 1e-3
    if family.endswith('regvit'):
        assert groups['backbone.reg_token']['weight_decay'] == 0.05
    expected = {'pos_embed', 'cls_token'}
    if family.endswith('ropevit'):
        expected = {'cls_token', 'rope.freqs'}
    if family.endswith('swin'):
        expected = {'relative_position_bias_table'}
    assert met == expected


@pytest.mark.parametrize('task', ['ade20k', 'pcontext', 'cocostuff', 'upernet_frozen_ade20k'])
@pytest.mark.parametrize('family', FAMILIES)
def test_a_segmentation_optimizer_holds_the_decoder_alone(family, task):
    name = leaf(f'locat{family}', 'tiny', task)
    cfg = load(name, shrink(name))
    model = MODELS.build(cfg.model)
    groups = by_name(model, optimizer_of(cfg, model).optimizer)
    decoder = {n for n, _ in model.named_parameters() if not n.startswith('backbone.')}
    assert set(groups) == decoder
    heads = {n for n in decoder if n.startswith(('decode_head.', 'auxiliary_head.', 'neck.'))}
    assert heads == decoder
    if 'upernet' not in task:
        assert all(g['weight_decay'] == 0.01 and g['lr'] == 1e-3 for g in groups.values())


@pytest.mark.parametrize('family', FAMILIES)
def test_upernet_learning_rates_fall_with_depth(family):
    name = leaf(f'locat{family}', 'tiny', 'upernet_ade20k')
    cfg = load(name)
    model = build_on_meta(cfg)
    groups = by_name(model, optimizer_of(cfg, model).optimizer)
    rate = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    first, last = (
        ('layers.0.blocks.0', 'layers.3.blocks.1')
        if family == 'swin'
        else ('blocks.0', 'blocks.11')
    )
    # 12 blocks between the embeddings and what comes after: 14 depths.
    depths = {'patch_embed.proj.weight': 13, f'{first}.attn.gaug.log_var.weight': 12}
    depths[f'{last}.mlp.fc1.weight'] = 1
    for key, depth in depths.items():
        assert groups[f'backbone.{key}']['lr'] == pytest.approx(1e-4 * rate**depth, rel=1e-9)
    assert groups['decode_head.conv_seg.weight']['lr'] == 1e-4
    for key, parameter in model.named_parameters():
        free = parameter.ndim == 1 or key.endswith(UNDECAYED)
        assert groups[key]['weight_decay'] == (0.0 if free else 0.05), key


def write_imagenet(folder: Path) -> None:
    rng = np.random.default_rng(0)
    root = folder / 'data' / 'imagenet'
    for split in ('train', 'val'):
        lines = []
        for label, wnid in ((0, 'n01440764'), (999, 'n15075141')):
            (root / split / wnid).mkdir(parents=True)
            for i in range(4):
                image = rng.integers(0, 255, (300, 260, 3), np.uint8)
                cv2.imwrite(str(root / split / wnid / f'{i}.JPEG'), image)
                lines.append(f'{wnid}/{i}.JPEG {label}')
        # Without a list, mmpretrain wants all 1,000 class folders.
        (root / 'meta').mkdir(exist_ok=True)
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(lines))


def write_segmentation(folder: Path, task: str) -> None:
    """Two images for training and one for validation, where the real data set has them."""
    rng = np.random.default_rng(0)
    root = (
        folder
        / dict(
            ade20k='data/ade/ADEChallengeData2016',
            pcontext='data/VOCdevkit/VOC2010',
            cocostuff='data/coco_stuff164k',
        )[task]
    )
    folders = {
        'ade20k': ('images/{long}', 'annotations/{long}', '.png'),
        'pcontext': ('JPEGImages', 'SegmentationClassContext', '.png'),
        'cocostuff': ('images/{split}2017', 'annotations/{split}2017', '_labelTrainIds.png'),
    }
    top = dict(ade20k=151, pcontext=60, cocostuff=171)[task]
    for split in ('train', 'val'):
        long = dict(train='training', val='validation')[split]
        images, masks, suffix = (part.format(split=split, long=long) for part in folders[task])
        image_dir, mask_dir = root / images, root / masks
        image_dir.mkdir(parents=True, exist_ok=True)
        mask_dir.mkdir(parents=True, exist_ok=True)
        images = [f'{split}{i}' for i in range(2 if split == 'train' else 1)]
        for stem in images:
            image = rng.integers(0, 255, (150, 211, 3), np.uint8)
            mask = np.kron(rng.integers(0, top, (15, 22)), np.ones((10, 10)))[:150, :211]
            cv2.imwrite(str(image_dir / f'{stem}.jpg'), image)
            cv2.imwrite(str(mask_dir / f'{stem}{suffix}'), mask.astype(np.uint8))
        if task == 'pcontext':
            lists = root / 'ImageSets' / 'SegmentationContext'
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f'{split}.txt').write_text('\n'.join(images))


FEW_IMAGES = {
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
}


@pytest.mark.parametrize('task', ['imagenet', 'ade20k', 'pcontext', 'cocostuff'])
def test_one_epoch_on_data_in_the_real_layout(task, tmp_path, monkeypatch):
    """The shipped recipe on a few images laid out as the real data set, then a test."""
    monkeypatch.chdir(tmp_path)
    name = f'locat/locatvit_tiny_{task}.py'
    overrides = {**FEW_IMAGES, **shrink(name), 'train_dataloader.batch_size': 2}
    if task == 'imagenet':
        write_imagenet(tmp_path)
        overrides |= {
            'optim_wrapper.type': 'OptimWrapper',
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
            'param_scheduler': None,
        }
    else:
        write_segmentation(tmp_path, task)
        overrides |= {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1}
    runner = build_runner(load(name, overrides, 'out'))
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    assert all(v.isfinite().all() for v in after.values())
    changed = {k for k in after if not torch.equal(before[k], after[k])}
    if task == 'imagenet':
        assert {'backbone.pos_embed', 'head.fc.weight'} <= changed
    else:
        assert changed and all(k.startswith('decode_head.') for k in changed)


def curve(cfg: Config, steps: list[int], epoch_length: int = 1) -> dict[int, float]:
    """The learning rate of each update, by stepping the schedule that mmengine builds."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(
            settings, default_args=dict(optimizer=optimizer, epoch_length=epoch_length)
        )
        for settings in cfg.param_scheduler
    ]
    found = {}
    for step in range(max(steps) + 1):
        found[step] = optimizer.param_groups[0]['lr']
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return {step: found[step] for step in steps}


def test_imagenet_learning_rate():
    cfg = load('locat/locatvit_tiny_imagenet.py')
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.auto_scale_lr.base_batch_size == 1024
    # 300 epochs of 4 updates: linear up for 80 updates, linear down for 1120.
    found = curve(cfg, [0, 40, 80, 640, 1199], epoch_length=4)
    assert found[0] == pytest.approx(1e-7)
    assert found[40] == pytest.approx(5e-4, rel=0.02)
    assert found[80] == pytest.approx(1e-3, rel=0.02)
    assert found[640] == pytest.approx(5e-4, rel=0.02)
    assert found[1199] == pytest.approx(1e-7, rel=1e-2)


def test_linear_decoding_learning_rate():
    found = curve(load('locat/locatvit_tiny_ade20k.py'), [0, 2500, 4999, 12500, 19999])
    assert found[0] == pytest.approx(1e-7, rel=1e-3)
    assert found[2500] == pytest.approx(5e-4, rel=0.01)
    assert found[4999] == pytest.approx(1e-3, rel=1e-3)
    assert found[12500] == pytest.approx(5e-4, rel=0.01)
    assert found[19999] == pytest.approx(1e-11, rel=1e-2)


def test_layer_wise_decay_through_mmpretrains_constructor():
    cfg = load('locat/locatvit_tiny_imagenet.py')
    model = build_on_meta(cfg)
    settings = Config(
        dict(
            wrapper=dict(
                optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
                constructor='LearningRateDecayOptimWrapperConstructor',
                paramwise_cfg=dict(layer_decay_rate=0.5),
            )
        )
    )
    groups = build_optim_wrapper(model, settings.wrapper).optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in groups}
    # 12 blocks between the embeddings and what comes after: 14 depths.
    assert rates['backbone.patch_embed.proj.weight'] == 0.5**13
    assert rates['backbone.blocks.0.attn.gaug.log_var.weight'] == 0.5**12
    assert rates['backbone.blocks.11.mlp.fc1.weight'] == 0.5
    assert rates['backbone.norm.weight'] == rates['head.fc.weight'] == 1.0


@pytest.mark.parametrize(
    'paramwise, message',
    [
        (dict(bias_lr_mult=2.0), 'knows no bias_lr_mult in paramwise_cfg'),
        (dict(custom_keys=dict(decode_head=dict(lr_mult=10.0))), r"\['decode_head'\].lr_mult"),
    ],
)
def test_options_that_would_be_ignored_are_refused(paramwise, message):
    name = 'locat/locatvit_tiny_ade20k.py'
    cfg = load(name, {**shrink(name), 'optim_wrapper.paramwise_cfg': paramwise})
    with pytest.raises(ValueError, match=message):
        optimizer_of(cfg, MODELS.build(cfg.model))


def test_a_backbone_without_depths_needs_no_decay():
    name = 'locat/locatvit_tiny_ade20k.py'
    cfg = load(name, shrink(name))
    model = torch.nn.ModuleDict(dict(backbone=torch.nn.Linear(2, 2)))
    assert len(by_name(model, optimizer_of(cfg, model).optimizer)) == 2
    cfg.optim_wrapper.paramwise_cfg = dict(layer_decay_rate=0.5)
    with pytest.raises(ValueError, match='layer_decay_rate=0.5 needs a backbone with get_layer'):
        optimizer_of(cfg, model)
