# GAug without PRR.
_base_ = ['../vit/vit_tiny_ade20k.py']

model = dict(
    backbone=dict(
        gaug=True, init_cfg=dict(checkpoint='work_dirs/vit_gaug_tiny_imagenet/epoch_300.pth')
    )
)
