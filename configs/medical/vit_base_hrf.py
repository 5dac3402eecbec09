_base_ = ['./vit_tiny_hrf.py']

model = dict(
    backbone=dict(
        arch='base', init_cfg=dict(checkpoint='work_dirs/vit_base_imagenet/epoch_300.pth')
    ),
    decode_head=dict(in_channels=768),
)
