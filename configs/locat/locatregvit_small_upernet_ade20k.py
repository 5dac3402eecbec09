_base_ = ['./locatregvit_tiny_upernet_ade20k.py']

model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint='work_dirs/locatregvit_small_imagenet/epoch_300.pth')
    ),
    neck=dict(embed_dim=384),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)
