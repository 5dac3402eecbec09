_base_ = ['./locatswin_tiny_cocostuff.py']

model = dict(
    backbone=dict(
        arch='small', init_cfg=dict(checkpoint='work_dirs/locatswin_small_imagenet/epoch_300.pth')
    ),
)
