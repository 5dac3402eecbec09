# PRR without GAug.
_base_ = ['../locat/locatvit_base_ade20k.py']

model = dict(
    backbone=dict(
        gaug=False, init_cfg=dict(checkpoint='work_dirs/vit_prr_base_imagenet/epoch_300.pth')
    )
)
