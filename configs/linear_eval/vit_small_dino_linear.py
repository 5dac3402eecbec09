_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/imagenet_linear.py',
    '../_base_/schedules/linear_100e.py',
    '../_base_/runtime_pretrain.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='small',
        gaug=False,
        init_cfg=dict(checkpoint='work_dirs/vit_small_dino/epoch_100.pth'),
    ),
    head=dict(in_channels=384),
)
