# DINO on digit_scenes' objects, without their labels: minutes on two cores.
_base_ = ['dino_recipe.py', 'knn_demo.py']

dataset_source = 'digit_scenes: run python tools/dataset_converters/digit_scenes.py'
data_root = 'data/digit_scenes/objects'

# What two crops of an image share is what DINO learns, and it takes the easiest: colour, place and
# background. So all images are grey, digits are moved, and many lose their background. No digit
# is flipped, for a mirrored digit is another or none.
grey = dict(type='RandomGrayscale', prob=1.0, keep_channels=True)
shift = dict(type='Translate', magnitude_range=(0, 0.1), magnitude_std='inf', pad_val=56, prob=1.0)
change = [
    grey,
    {**shift, 'direction': 'horizontal'},
    {**shift, 'direction': 'vertical'},
    dict(type='ColorJitter', brightness=0.3, contrast=0.3),
    dict(type='Posterize', bits=1, prob=0.4),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=[2, 2],
        transforms=[
            [dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.6, 1.0)), *change],
            [dict(type='RandomResizedCrop', scale=40, crop_ratio_range=(0.5, 0.9)), *change],
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
    head=dict(out_channels=256, hidden_channels=256, bottleneck_channels=64),
    loss=dict(teacher_temp=0.02, warmup_teacher_temp=0.02),
    base_momentum=0.01,
    # The usual 0.02 suits widths of hundreds; at 64 it leaves little of the images, and DINO, which
    # has no labels to pull it along, does not get away from there in minutes.
    init_cfg=dict(type='Xavier', layer='Linear', distribution='normal'),
)
warmup_epochs = 1
param_scheduler = [
    {**_base_.param_scheduler[0], 'end': warmup_epochs},
    {**_base_.param_scheduler[1], 'begin': warmup_epochs},
    _base_.param_scheduler[2],
]
train_cfg = dict(max_epochs=8, val_interval=2)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(max_keep_ckpts=2))
