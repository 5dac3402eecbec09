_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_default_stats.py',
    '../_base_/schedules/imagenet_300e.py',
    '../_base_/runtime_pretrain.py',
]

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type='locat_mm.LocAtRoPEViT', arch='tiny', drop_path_rate=0.1),
    neck=dict(num_heads=3),
    # std: timm's 0.02, scaled by 0.001.
    head=dict(in_channels=192, init_cfg=dict(std=2e-5)),
)
