_base_ = ['./locatropevit_tiny_ade20k.py']

model = dict(
    backbone=dict(
        arch='base', init_cfg=dict(checkpoint='work_dirs/locatropevit_base_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=768),
)
