# DINO on ImageNet-1K, 100 epochs, 8 GPUs × 64 images: the authors' recipe.
_base_ = ['dino_recipe.py', 'knn_imagenet.py']

dataset_source = (
    'ImageNet-1K: register at https://image-net.org, download ILSVRC2012, and lay its training '
    'images out as data/imagenet/train/WNID/*.JPEG.'
)
data_root = 'data/imagenet'

flip_and_colour = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomApply',
        transforms=[
            dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
        ],
        prob=0.8,
    ),
    # The weights of B, G and R.
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.299),
    ),
]
# Radius uniform within the range.
blur = dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf')
crop = dict(type='RandomResizedCrop', backend='pillow', interpolation='bicubic')
global_crop = dict(**crop, scale=224, crop_ratio_range=(0.4, 1.0))
local_crop = dict(**crop, scale=96, crop_ratio_range=(0.05, 0.4))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiView',
        num_views=[1, 1, 8],
        transforms=[
            [global_crop, *flip_and_colour, dict(**blur, prob=1.0)],
            [
                global_crop,
                *flip_and_colour,
                dict(**blur, prob=0.1),
                dict(type='Solarize', thr=128, prob=0.2),
            ],
            [local_crop, *flip_and_colour, dict(**blur, prob=0.5)],
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    pin_memory=True,
    dataset=dict(type='ImageNet', data_root=data_root, split='train', pipeline=train_pipeline),
)
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
# lr 5e-4 per 256 images; 1e-3 at the global batch of 512.
auto_scale_lr = dict(base_batch_size=512, enable=False)
optim_wrapper = dict(type='AmpOptimWrapper')  # float16, dynamic loss scale
train_cfg = dict(val_interval=10)
