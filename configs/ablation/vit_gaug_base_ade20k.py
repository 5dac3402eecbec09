# GAug without PRR.
_base_ = ['../vit/vit_base_ade20k.py']

model = dict(
    backbone=dict(
        gaug=True, init_cfg=dict(checkpoint='work_dirs/vit_gaug_base_imagenet/epoch_300.pth')
    )
)
