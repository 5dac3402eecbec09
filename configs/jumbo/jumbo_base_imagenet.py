_base_ = ['./jumbo_tiny_imagenet.py']

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4),
    head=dict(in_channels=4608),
)
