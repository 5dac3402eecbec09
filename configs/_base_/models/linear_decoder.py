# Linear decoder on the last patch map of a frozen backbone. Number of classes and crop size are
# ADE20K's. The leaf gives the backbone's type, arch and weights, and the width of the decoder.
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
    # The patch map before the final norm and without PRR.
    # frozen: always in eval mode, without gradients and without stochastic depth.
    backbone=dict(
        img_size=224,
        patch_size=16,
        gaug=True,
        out_type='featmap',
        final_norm=False,
        frozen=True,
        init_cfg=dict(type='Pretrained'),
    ),
    decode_head=dict(
        type='locat_mm.LinearSegHead',
        channels=512,
        num_classes=150,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=False),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
