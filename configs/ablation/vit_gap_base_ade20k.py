# No class token.
_base_ = ['../vit/vit_base_ade20k.py']

model = dict(
    backbone=dict(
        class_token=False, init_cfg=dict(checkpoint='work_dirs/vit_gap_base_imagenet/epoch_300.pth')
    )
)
