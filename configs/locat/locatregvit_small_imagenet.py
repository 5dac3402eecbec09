_base_ = ['./locatregvit_tiny_imagenet.py']

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2),
    neck=dict(num_heads=6),
    head=dict(in_channels=384),
)
