_base_ = [
    '../_base_/models/foundation_decoder.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
    ),
    backbone=dict(
        model_name='vit_base_patch16_siglip_224.v2_webli',
        init_cfg=dict(checkpoint='timm:vit_base_patch16_siglip_224.v2_webli'),
    ),
    decode_head=dict(in_channels=768),
)
