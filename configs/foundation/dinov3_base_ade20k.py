_base_ = [
    '../_base_/models/foundation_decoder.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        model_name='vit_base_patch16_dinov3.lvd1689m',
        init_cfg=dict(checkpoint='timm:vit_base_patch16_dinov3.lvd1689m'),
    ),
    decode_head=dict(in_channels=768),
)
