_base_ = [
    '../_base_/models/dino.py',
    '../_base_/datasets/imagenet_dino.py',
    '../_base_/schedules/dino_100e.py',
    '../_base_/runtime_pretrain.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT', arch='small', gaug=False, out_type='cls_token', drop_path_rate=0.1
    ),
    neck=None,
    head=dict(in_channels=384),
)
