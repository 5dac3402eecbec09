_base_ = ['./regvit_tiny_pcontext.py']

model = dict(
    backbone=dict(
        arch='base', init_cfg=dict(checkpoint='work_dirs/regvit_base_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=768),
)
