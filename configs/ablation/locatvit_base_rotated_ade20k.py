# LocAtViT with rotated kernels.
_base_ = ['../locat/locatvit_base_ade20k.py']

model = dict(
    backbone=dict(
        kernel='rotated',
        init_cfg=dict(checkpoint='work_dirs/locatvit_base_rotated_imagenet/epoch_300.pth'),
    )
)
