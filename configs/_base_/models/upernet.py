# UPerNet on ADE20K, on the maps of four blocks at four scales. The paper has no such results.
# The leaf gives the backbone's type, arch and weights, and the widths of neck and heads.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # ImageNet's mean and std for every model.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
        # Whole images are padded to a multiple of the patch size; mmseg crops the padding again.
        test_cfg=dict(size_divisor=16),
    ),
    backbone=dict(
        img_size=224,
        patch_size=16,
        gaug=True,
        out_indices=(2, 5, 8, 11),
        out_type='featmap',
        final_norm=False,
        init_cfg=dict(type='Pretrained'),
    ),
    neck=dict(type='Feature2Pyramid', norm_cfg=dict(type='SyncBN')),
    decode_head=dict(
        type='UPerHead',
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
