_base_ = ['./swin_tiny_potsdam.py']

model = dict(
    backbone=dict(
        arch='base', init_cfg=dict(checkpoint='work_dirs/swin_base_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=1024),
)
