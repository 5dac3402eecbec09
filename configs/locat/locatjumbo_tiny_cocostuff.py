_base_ = [
    '../_base_/models/linear_decoder.py',
    '../_base_/datasets/coco_stuff164k.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtJumbo',
        arch='tiny',
        num_jumbo_tokens=6,
        init_cfg=dict(checkpoint='work_dirs/locatjumbo_tiny_imagenet/epoch_300.pth'),
    ),
    decode_head=dict(in_channels=192, num_classes=171),
)
