# DINO on digit_scenes' objects, without their labels: minutes on two cores.
_base_ = ['dino_recipe.py', 'knn_demo.py']

dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/objects'

# Digits fill most of an image, so crops are large. A mirrored digit is another or none, so none is
# flipped. Colours say nothing of a digit and yet tell images apart, so they are changed far more
# than in photographs.
colour = [
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.8, hue=0.5),
    dict(
        type='RandomGrayscale',
        prob=0.8,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.299),
    ),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=[2, 4],
        transforms=[
            [dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.7, 1.0)), *colour],
            [dict(type='RandomResizedCrop', scale=24, crop_ratio_range=(0.35, 0.7)), *colour],
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0]),
    head=dict(
        out_channels=1024,
        hidden_channels=256,
        bottleneck_channels=64,
        # DINO's own 0.02 suits widths of thousands; here it would leave nothing of the images.
        init_cfg=dict(type='Xavier', layer='Linear', distribution='normal'),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
warmup_epochs = 1
param_scheduler = [
    {**_base_.param_scheduler[0], 'end': warmup_epochs},
    {**_base_.param_scheduler[1], 'begin': warmup_epochs},
    _base_.param_scheduler[2],
]
train_cfg = dict(max_epochs=10, val_interval=2)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(max_keep_ckpts=2))
