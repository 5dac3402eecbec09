_base_ = [
    '../../_base_/models/demo_dino.py',
    '../../_base_/datasets/digit_objects_dino.py',
    '../../_base_/schedules/demo_dino_8e.py',
    '../../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(type='locat_mm.LocAtViT', gaug=False, out_type='cls_token'),
    neck=None,
)
default_hooks = dict(logger=dict(interval=50))
