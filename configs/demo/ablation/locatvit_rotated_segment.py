_base_ = [
    '../../_base_/models/demo_linear_decoder.py',
    '../../_base_/datasets/digit_scenes.py',
    '../../_base_/schedules/demo_decode_600.py',
    '../../_base_/runtime_demo_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        kernel='rotated',
        init_cfg=dict(
            checkpoint='work_dirs/locatvit_rotated_classify/epoch_8.pth', prefix='backbone.'
        ),
    ),
)
