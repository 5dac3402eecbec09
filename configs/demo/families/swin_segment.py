_base_ = [
    '../../_base_/models/demo_linear_decoder.py',
    '../../_base_/datasets/digit_scenes.py',
    '../../_base_/schedules/demo_decode_600.py',
    '../../_base_/runtime_demo_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtSwin',
        arch=dict(_delete_=True, embed_dim=32, depths=(2, 2), num_heads=(1, 2)),
        patch_size=4,
        window_size=6,
        gaug=False,
        init_cfg=dict(checkpoint='work_dirs/swin_classify/epoch_8.pth'),
    ),
)
