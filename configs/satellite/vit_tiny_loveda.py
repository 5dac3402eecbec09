_base_ = ['./locatvit_tiny_loveda.py']

model = dict(
    backbone=dict(
        gaug=False, init_cfg=dict(checkpoint='work_dirs/vit_tiny_imagenet/epoch_300.pth')
    ),
)
