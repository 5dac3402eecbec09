# Linear decoding of a frozen backbone with mmseg; a task adds data, classes and schedule.
_base_ = ['runtime_segment.py']

# The last block's patch map, before the final norm and without PRR. Frozen: eval mode that
# survives .train(), no gradients.
frozen_features = dict(out_type='featmap', final_norm=False, frozen=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    decode_head=dict(
        type='locat_mm.LinearSegHead',
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=False),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
train_dataloader = dict(persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(
    batch_size=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False)
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
)
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
