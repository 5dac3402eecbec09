_base_ = [
    '../_base_/models/foundation_decoder.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(
        size=(518, 518),
        test_cfg=dict(size_divisor=14),
    ),
    backbone=dict(
        model_name='vit_base_patch14_dinov2.lvd142m',
        init_cfg=dict(checkpoint='timm:vit_base_patch14_dinov2.lvd142m'),
    ),
    decode_head=dict(in_channels=768),
)
