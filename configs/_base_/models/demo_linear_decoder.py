# linear_decoder.py for digit_scenes' scenes, with a backbone small enough for two CPU cores.
_base_ = ['linear_decoder.py']

model = dict(
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5],
        std=[64.0, 64.0, 64.0],
        size=(72, 72),
        test_cfg=dict(size_divisor=8),
    ),
    backbone=dict(
        arch=dict(embed_dim=64, depth=4, num_heads=2),
        img_size=48,
        patch_size=8,
    ),
    decode_head=dict(in_channels=64, channels=128, num_classes=11),
)
