# in_context_segmentor.py for digit_scenes' scenes, with a backbone small enough for two CPU cores.
_base_ = ['in_context_segmentor.py']

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0]),
    backbone=dict(
        arch=dict(embed_dim=64, depth=4, num_heads=2),
        img_size=48,
        patch_size=8,
    ),
    num_classes=11,
)
