# Linear evaluation: a linear classifier on the class token of a frozen backbone.
# The leaf gives the backbone's type, arch and weights, and the width of the head.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    # frozen: always in eval mode, without gradients and without stochastic depth.
    backbone=dict(
        img_size=224,
        patch_size=16,
        out_type='cls_token',
        frozen=True,
        # Of a DINO checkpoint, the teacher is evaluated.
        init_cfg=dict(type='Pretrained', prefix='teacher.module.backbone.'),
    ),
    head=dict(type='LinearClsHead', num_classes=1000, loss=dict(type='CrossEntropyLoss')),
    train_cfg=None,
)
