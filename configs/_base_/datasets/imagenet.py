# ImageNet-1K for pretraining, 8 GPUs × 128 images: the authors' augmentations. Fills are the grey
# of mean 0.5 (ViT, RegViT, Jumbo).
dataset_source = (
    'ImageNet-1K: register at https://image-net.org, download ILSVRC2012, and lay it out as '
    'data/imagenet/{train,val}/WNID/*.JPEG (validation images sorted into class folders, or '
    'listed in data/imagenet/meta/val.txt).'
)
dataset_type = 'ImageNet'
data_root = 'data/imagenet'
num_classes = 1000

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=num_classes),
    # Bilinear or bicubic at random, as timm's "random" interpolation.
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
    dict(
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
                    hparams=dict(pad_val=[128, 128, 128], interpolation=interpolation),
                )
            ]
            for interpolation in ('bilinear', 'bicubic')
        ],
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[128, 128, 128],
        fill_std=[127.5, 127.5, 127.5],
    ),
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
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
