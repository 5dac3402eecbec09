_base_ = ['./locatswin_tiny_upernet_potsdam.py']

model = dict(
    backbone=dict(
        gaug=False, init_cfg=dict(checkpoint='work_dirs/swin_tiny_imagenet/epoch_300.pth')
    ),
)
