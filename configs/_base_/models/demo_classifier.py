# classifier.py for digit_scenes' objects, with a backbone small enough for two CPU cores.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=10, mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0], to_rgb=True
    ),
    backbone=dict(
        arch=dict(embed_dim=64, depth=4, num_heads=2),
        img_size=48,
        patch_size=8,
        gaug=True,
        out_type='raw',
    ),
    neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=2, pool='cls_token'),
    head=dict(
        type='LinearClsHead',
        in_channels=64,
        num_classes=10,
        # torch's own, larger initialization: with 10 classes the usual 0.02 costs an epoch.
        init_cfg=None,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
