_base_ = ['./vit_tiny_ade20k.py']

model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint='work_dirs/vit_small_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=384),
)
