# digit_scenes' objects without labels, for DINO. Validation and test: k-NN on the teacher.
dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/objects'

# DINO learns what the crops of an image share, and prefers what is easiest: colour, place and
# background. So all images are grey, digits are moved, and many lose their background. No digit is
# flipped: a mirrored digit is another digit, or none.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=[2, 2],
        transforms=[
            [
                dict(type='RandomResizedCrop', scale=scale, crop_ratio_range=crop_ratio_range),
                dict(type='RandomGrayscale', prob=1.0, keep_channels=True),
                *[
                    dict(
                        type='Translate',
                        magnitude_range=(0, 0.1),
                        magnitude_std='inf',
                        pad_val=56,
                        prob=1.0,
                        direction=direction,
                    )
                    for direction in ('horizontal', 'vertical')
                ],
                dict(type='ColorJitter', brightness=0.3, contrast=0.3),
                dict(type='Posterize', bits=1, prob=0.4),
            ]
            for scale, crop_ratio_range in ((48, (0.6, 1.0)), (40, (0.5, 0.9)))
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix='train', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='val',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='locat_mm.CheckAnnotations', num_classes=10),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader

# The bank: training images, read as the validation images are.
val_cfg = dict(
    type='locat_mm.KNNValLoop',
    bank_dataloader=dict(
        val_dataloader, dataset=dict(val_dataloader['dataset'], data_prefix='train')
    ),
    backbone='teacher.module.backbone',
)
test_cfg = dict(val_cfg, type='locat_mm.KNNTestLoop')
val_evaluator = dict(type='locat_mm.KNNAccuracy')
test_evaluator = val_evaluator
