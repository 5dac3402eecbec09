_base_ = [
    '../../_base_/models/demo_classifier.py',
    '../../_base_/datasets/digit_objects.py',
    '../../_base_/schedules/demo_classify_8e.py',
    '../../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(type='locat_mm.LocAtViT', kernel='rotated'),
)
