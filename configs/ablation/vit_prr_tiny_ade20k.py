# PRR without GAug.
_base_ = ['../locat/locatvit_tiny_ade20k.py']

model = dict(
    backbone=dict(
        gaug=False, init_cfg=dict(checkpoint='work_dirs/vit_prr_tiny_imagenet/epoch_300.pth')
    )
)
