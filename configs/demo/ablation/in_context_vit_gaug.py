_base_ = [
    '../../_base_/models/demo_in_context_segmentor.py',
    '../../_base_/datasets/in_context_digit_scenes.py',
    '../../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        init_cfg=dict(checkpoint='work_dirs/vit_gaug_classify/epoch_8.pth', prefix='backbone.'),
    )
)
