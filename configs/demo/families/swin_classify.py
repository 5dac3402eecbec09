_base_ = [
    '../../_base_/models/demo_classifier.py',
    '../../_base_/datasets/digit_objects.py',
    '../../_base_/schedules/demo_classify_8e.py',
    '../../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtSwin',
        arch=dict(_delete_=True, embed_dim=32, depths=(2, 2), num_heads=(1, 2)),
        patch_size=4,
        window_size=6,
        gaug=False,
        out_type='avg_featmap',
    ),
    neck=None,
)
