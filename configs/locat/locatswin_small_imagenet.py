_base_ = ['./locatswin_tiny_imagenet.py']

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2),
)
