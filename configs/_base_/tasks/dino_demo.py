# DINO on digit_scenes' objects, without their labels: minutes on two cores.
_base_ = ['dino_recipe.py', 'knn_demo.py']

dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/objects'

# Digits are not flipped: a mirrored one is another or none. Colours say nothing of a digit and yet
# tell images apart, so they are changed far more than in photographs.
colour = [
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.8, hue=0.5),
    dict(
        type='RandomGrayscale',
        prob=0.5,
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
            [dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.4, 1.0)), *colour],
            [dict(type='RandomResizedCrop', scale=24, crop_ratio_range=(0.15, 0.4)), *colour],
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
    head=dict(out_channels=1024, hidden_channels=256, bottleneck_channels=64),
    # Sharper than for ImageNet: at 0.04 the targets become uniform within two epochs.
    loss=dict(teacher_temp=0.02, warmup_teacher_temp=0.02),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
warmup_epochs = 1
param_scheduler = [
    {**_base_.param_scheduler[0], 'end': warmup_epochs},
    {**_base_.param_scheduler[1], 'begin': warmup_epochs},
    _base_.param_scheduler[2],
]
train_cfg = dict(max_epochs=10, val_interval=2)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(max_keep_ckpts=2))
