_base_ = [
    '../_base_/models/demo_linear_decoder.py',
    '../_base_/datasets/land_cover_scenes.py',
    '../_base_/schedules/demo_decode_600.py',
    '../_base_/runtime_demo_segment.py',
]

model = dict(
    data_preprocessor=dict(
        mean=[119.5, 112.8, 87.5],
        std=[73.5, 68.2, 76.6],
        size=(64, 64),
        test_cfg=dict(size_divisor=4),
    ),
    backbone=dict(
        type='locat_mm.LocAtViT',
        img_size=32,
        patch_size=4,
        init_cfg=dict(checkpoint='work_dirs/locatvit_classify/epoch_5.pth', prefix='backbone.'),
    ),
    decode_head=dict(num_classes=7),
)
param_scheduler = [dict(_base_.param_scheduler[0], total_steps=400)]
train_cfg = dict(max_iters=400, val_interval=400)
