_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_default_stats.py',
    '../_base_/schedules/imagenet_300e.py',
    '../_base_/runtime_pretrain.py',
]

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    # PRR reads the final-normed last map, and passes the mean of its output to the head.
    backbone=dict(
        type='locat_mm.LocAtSwin',
        arch='tiny',
        patch_size=4,
        window_size=7,
        out_type='featmap',
        drop_path_rate=0.1,
    ),
    neck=dict(num_heads=24, pool='avg'),
    head=dict(in_channels=768),
)
