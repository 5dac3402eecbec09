_base_ = ['./locatvit_tiny_upernet_stare.py']

model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=4)),
    backbone=dict(
        type='locat_mm.LocAtSwin',
        patch_size=4,
        window_size=7,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(checkpoint='work_dirs/locatswin_tiny_imagenet/epoch_300.pth'),
    ),
    neck=None,
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9))
