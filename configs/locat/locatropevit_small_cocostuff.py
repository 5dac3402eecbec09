_base_ = ['./locatropevit_tiny_cocostuff.py']

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='work_dirs/locatropevit_small_imagenet/epoch_300.pth'),
    ),
    decode_head=dict(in_channels=384),
)
