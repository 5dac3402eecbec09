_base_ = [
    '../_base_/models/demo_linear_classifier.py',
    '../_base_/datasets/digit_objects.py',
    '../_base_/schedules/demo_linear_10e.py',
    '../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        gaug=False,
        init_cfg=dict(checkpoint='work_dirs/vit_dino/epoch_8.pth'),
    ),
)
