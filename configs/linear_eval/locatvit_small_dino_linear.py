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
        gaug=True,
        out_type='raw',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='work_dirs/locatvit_small_dino/epoch_100.pth'),
    ),
    # The class token after PRR, as in the authors' code.
    neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=6, pool='cls_token'),
    head=dict(in_channels=384),
)
