# ImageNet-1K for DINO, 8 GPUs × 64 images: the authors' crops and augmentations. Validation and
# test: k-NN on the teacher's class token.
dataset_source = (
    'ImageNet-1K: register at https://image-net.org, download ILSVRC2012, and lay its training '
    'images out as data/imagenet/train/WNID/*.JPEG.'
)
data_root = 'data/imagenet'

# One of two global crops has strong blur, the other weak blur and solarization; eight local crops.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=[1, 1, 8],
        transforms=[
            [
                dict(
                    type='RandomResizedCrop',
                    scale=scale,
                    crop_ratio_range=crop_ratio_range,
                    backend='pillow',
                    interpolation='bicubic',
                ),
                dict(type='RandomFlip', prob=0.5, direction='horizontal'),
                dict(
                    type='RandomApply',
                    transforms=[
                        dict(
                            type='ColorJitter',
                            brightness=0.4,
                            contrast=0.4,
                            saturation=0.2,
                            hue=0.1,
                        )
                    ],
                    prob=0.8,
                ),
                # Weights of B, G and R.
                dict(
                    type='RandomGrayscale',
                    prob=0.2,
                    keep_channels=True,
                    channel_weights=(0.114, 0.587, 0.299),
                ),
                # magnitude_std='inf': the radius is uniform within the range.
                dict(
                    type='GaussianBlur',
                    magnitude_range=(0.1, 2.0),
                    magnitude_std='inf',
                    prob=blur_prob,
                ),
                *solarize,
            ]
            for scale, crop_ratio_range, blur_prob, solarize in (
                (224, (0.4, 1.0), 1.0, []),
                (224, (0.4, 1.0), 0.1, [dict(type='Solarize', thr=128, prob=0.2)]),
                (96, (0.05, 0.4), 0.5, []),
            )
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ImageNet', data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNet',
        data_root=data_root,
        split='val',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='locat_mm.CheckAnnotations', num_classes=1000),
            dict(
                type='ResizeEdge',
                scale=256,
                edge='short',
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader

# The bank: training images, read as the validation images are.
val_cfg = dict(
    type='locat_mm.KNNValLoop',
    bank_dataloader=dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='train')),
    backbone='teacher.module.backbone',
    k=(10, 20, 100, 200),
    temperature=0.07,
)
test_cfg = dict(val_cfg, type='locat_mm.KNNTestLoop')
val_evaluator = dict(type='locat_mm.KNNAccuracy', topk=(1, 5))
test_evaluator = val_evaluator
