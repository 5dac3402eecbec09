_base_ = ['./ropevit_tiny_imagenet.py']

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2),
    head=dict(in_channels=384),
)
