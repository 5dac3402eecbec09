# ImageNet-1K pretraining, 300 epochs, 8 GPUs × 128 images: the authors' recipe, with mean and std
# 0.5 (ViT, RegViT, Jumbo).
_base_ = ['../pretraining.py']

dataset_source = (
    'ImageNet-1K: register at https://image-net.org, download ILSVRC2012, and lay it out as '
    'data/imagenet/{train,val}/WNID/*.JPEG (validation images sorted into class folders, or '
    'listed in data/imagenet/meta/val.txt).'
)
dataset_type = 'ImageNet'
data_root = 'data/imagenet'
num_classes = 1000

# Pixels are BGR until the preprocessor turns them; the fill is the grey of mean 0.5.
fill = [128, 128, 128]
rand_augment = dict(
    type='RandomChoice',
    transforms=[
        [
            dict(
                type='RandAugment',
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=9,
                magnitude_std=0.5,
                hparams=dict(pad_val=fill, interpolation=interpolation),
            )
        ]
        for interpolation in ('bilinear', 'bicubic')
    ],
)
random_erasing = dict(
    type='RandomErasing',
    erase_prob=0.25,
    mode='rand',
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
    fill_color=fill,
    fill_std=[127.5, 127.5, 127.5],
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    # Random bilinear / bicubic, as timm's "random" interpolation.
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandomResizedCrop',
                    scale=224,
                    crop_ratio_range=(0.08, 1.0),
                    backend='pillow',
                    interpolation=interpolation,
                )
            ]
            for interpolation in ('bilinear', 'bicubic')
        ],
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    rand_augment,
    random_erasing,
    dict(type='PackInputs'),
]
# Bicubic, crop ratio 0.9: 224 / 0.9 = 248.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    pin_memory=True,
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    pin_memory=True,
    dataset=dict(type=dataset_type, data_root=data_root, split='val', pipeline=test_pipeline),
)
test_dataloader = {**_base_.val_dataloader, **val_dataloader}
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

model = dict(
    data_preprocessor=dict(
        num_classes=num_classes, mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]
    ),
    head=dict(
        num_classes=num_classes,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# lr 5e-4 per 512 images; 1e-3 at the global batch of 1024.
auto_scale_lr = dict(base_batch_size=1024, enable=False)
optim_wrapper = dict(type='AmpOptimWrapper')  # float16, dynamic loss scale
# Linear up over 20 epochs, linear down to 1e-7, a step every update.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(
        type='LinearLR',
        start_factor=1.0,
        end_factor=1e-4,
        by_epoch=True,
        begin=20,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=10)
