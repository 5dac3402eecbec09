_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/upernet_160k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=4)),
    backbone=dict(
        type='locat_mm.LocAtSwin',
        arch='tiny',
        patch_size=4,
        window_size=7,
        out_indices=(0, 1, 2, 3),
        frozen=True,
        init_cfg=dict(checkpoint='work_dirs/locatswin_tiny_imagenet/epoch_300.pth'),
    ),
    neck=None,
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
train_dataloader = dict(batch_size=2)  # 8 GPUs × 2 images
default_hooks = dict(checkpoint=dict(interval=16000))
