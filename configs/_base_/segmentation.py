# What data sets of mmseg share.
_base_ = ['runtime_segment.py']

train_dataloader = dict(persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(
    batch_size=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False)
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
