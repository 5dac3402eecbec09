_base_ = ['./locatvit_tiny_cocostuff.py']

model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint='work_dirs/locatvit_small_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=384),
)
