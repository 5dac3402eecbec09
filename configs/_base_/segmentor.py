# What segmentors of mmseg share, whatever the decoder.
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
        # A leaf gives size_divisor: whole images are padded to the patch here, so that mmseg crops
        # the padding again.
        test_cfg=dict(),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
