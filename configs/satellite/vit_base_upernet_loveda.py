_base_ = ['./vit_tiny_upernet_loveda.py']

model = dict(
    backbone=dict(
        arch='base', init_cfg=dict(checkpoint='work_dirs/vit_base_imagenet/epoch_300.pth')
    ),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)
