_base_ = ['./locatropevit_tiny_imagenet.py']

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4),
    neck=dict(num_heads=12),
    head=dict(in_channels=768),
)
