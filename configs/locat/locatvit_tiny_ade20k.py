_base_ = [
    '../_base_/models/linear_decoder.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='tiny',
        init_cfg=dict(checkpoint='hf-hub:sinahmr/locatvit_tiny'),
    ),
    decode_head=dict(in_channels=192),
)
