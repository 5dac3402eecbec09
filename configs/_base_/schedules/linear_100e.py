# Linear evaluation, 100 epochs of 1,024-image batches, as DINO does it.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=4e-3, momentum=0.9, weight_decay=0.0),
    # Gives the optimizer the trainable parameters alone: the classifier's.
    constructor='locat_mm.SegmentorOptimWrapperConstructor',
)
# lr 1e-3 per 256 images; 4e-3 at the global batch of 1024.
auto_scale_lr = dict(base_batch_size=1024, enable=False)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, T_max=100, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
val_cfg = dict()
test_cfg = dict()
