# No class token.
_base_ = ['../vit/vit_tiny_ade20k.py']

model = dict(
    backbone=dict(
        class_token=False, init_cfg=dict(checkpoint='work_dirs/vit_gap_tiny_imagenet/epoch_300.pth')
    )
)
