# DINO on digit_scenes' objects, 8 epochs in float32: minutes on two CPU cores.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.04),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=1.0, flat_decay_mult=0.0, bias_decay_mult=0.0, norm_decay_mult=0.0
    ),
)
custom_hooks = [dict(type='locat_mm.DINOHook', max_norm=3.0, frozen_epochs=1)]
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingParamScheduler',
        param_name='weight_decay',
        eta_min_ratio=10.0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=2)
