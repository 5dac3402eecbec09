_base_ = [
    '../_base_/models/linear_decoder.py',
    '../_base_/datasets/pascal_context_59.py',
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(
        type='locat_mm.LocAtRoPEViT',
        arch='tiny',
        init_cfg=dict(checkpoint='work_dirs/locatropevit_tiny_imagenet/epoch_300.pth'),
    ),
    decode_head=dict(in_channels=192, num_classes=59),
)
