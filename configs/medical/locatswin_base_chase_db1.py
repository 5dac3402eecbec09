_base_ = ['./locatswin_tiny_chase_db1.py']

model = dict(
    backbone=dict(
        arch='base', init_cfg=dict(checkpoint='work_dirs/locatswin_base_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=1024),
)
