_base_ = [
    '../_base_/models/demo_linear_classifier.py',
    '../_base_/datasets/digit_objects.py',
    '../_base_/schedules/demo_linear_10e.py',
    '../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        gaug=True,
        out_type='raw',
        init_cfg=dict(checkpoint='work_dirs/locatvit_dino/epoch_8.pth'),
    ),
    # The class token after PRR, as in the authors' code.
    neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=2, pool='cls_token'),
)
