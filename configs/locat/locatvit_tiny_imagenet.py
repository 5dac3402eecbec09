_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
    '../_base_/runtime_pretrain.py',
]

model = dict(
    backbone=dict(type='locat_mm.LocAtViT', arch='tiny', drop_path_rate=0.1),
    neck=dict(num_heads=3),
    head=dict(in_channels=192),
)
