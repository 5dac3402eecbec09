_base_ = ['./ropevit_tiny_cocostuff.py']

model = dict(
    backbone=dict(
        arch='base', init_cfg=dict(checkpoint='work_dirs/ropevit_base_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=768),
)
