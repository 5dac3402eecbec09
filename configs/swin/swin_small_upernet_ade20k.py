_base_ = ['./swin_tiny_upernet_ade20k.py']

model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint='work_dirs/swin_small_imagenet/epoch_300.pth')
    ),
)
