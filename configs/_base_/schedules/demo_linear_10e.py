# Linear evaluation on digit_scenes' objects, 10 epochs.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=0.0),
    # Gives the optimizer the trainable parameters alone: the classifier's.
    constructor='locat_mm.SegmentorOptimWrapperConstructor',
)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, T_max=10, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=10)
val_cfg = dict()
test_cfg = dict()
