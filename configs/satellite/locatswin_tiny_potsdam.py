_base_ = ['./locatvit_tiny_potsdam.py']

model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=4)),
    backbone=dict(
        type='locat_mm.LocAtSwin',
        patch_size=4,
        window_size=7,
        init_cfg=dict(checkpoint='work_dirs/locatswin_tiny_imagenet/epoch_300.pth'),
    ),
    decode_head=dict(in_channels=768),
)
