_base_ = [
    '../_base_/models/foundation_decoder.py',
    '../_base_/datasets/pascal_voc12.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(
        size=(518, 518),
        test_cfg=dict(size_divisor=14),
    ),
    backbone=dict(
        model_name='vit_small_patch14_dinov2.lvd142m',
        init_cfg=dict(checkpoint='timm:vit_small_patch14_dinov2.lvd142m'),
    ),
    decode_head=dict(in_channels=384, num_classes=21),
)
