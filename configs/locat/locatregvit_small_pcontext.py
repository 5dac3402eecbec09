_base_ = ['./locatregvit_tiny_pcontext.py']

model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint='work_dirs/locatregvit_small_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=384),
)
