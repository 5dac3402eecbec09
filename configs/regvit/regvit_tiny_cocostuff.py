_base_ = [
    '../_base_/models/linear_decoder.py',
    '../_base_/datasets/coco_stuff164k.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='tiny',
        num_registers=4,
        gaug=False,
        init_cfg=dict(checkpoint='work_dirs/regvit_tiny_imagenet/epoch_300.pth'),
    ),
    decode_head=dict(in_channels=192, num_classes=171),
)
