_base_ = ['./locatswin_tiny_imagenet.py']

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4),
    neck=dict(num_heads=32),
    head=dict(in_channels=1024),
)
