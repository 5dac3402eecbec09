_base_ = [
    '../_base_/models/foundation_decoder.py',
    '../_base_/datasets/pascal_voc12.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
    ),
    backbone=dict(
        model_name='vit_pe_core_small_patch16_384.fb',
        init_cfg=dict(checkpoint='timm:vit_pe_core_small_patch16_384.fb'),
    ),
    decode_head=dict(in_channels=384, num_classes=21),
)
