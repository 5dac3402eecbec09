# linear_classifier.py for digit_scenes' objects.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=10, mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0], to_rgb=True
    ),
    # frozen: always in eval mode, without gradients and without stochastic depth.
    backbone=dict(
        arch=dict(embed_dim=64, depth=4, num_heads=2),
        img_size=48,
        patch_size=8,
        out_type='cls_token',
        frozen=True,
        # Of a DINO checkpoint, the teacher is evaluated.
        init_cfg=dict(type='Pretrained', prefix='teacher.module.backbone.'),
    ),
    head=dict(
        type='LinearClsHead',
        in_channels=64,
        num_classes=10,
        init_cfg=None,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
