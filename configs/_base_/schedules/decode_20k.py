# Linear decoding, 20k iterations of 32-image batches: the authors' recipe.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    # Gives the optimizer the trainable parameters alone: the decoder's.
    constructor='locat_mm.SegmentorOptimWrapperConstructor',
)
auto_scale_lr = dict(base_batch_size=32, enable=False)
# One cycle, linear both ways: up from 1e-7 to 1e-3 over a quarter, then down to 1e-11.
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=1e-3,
        total_steps=20000,
        pct_start=0.25,
        anneal_strategy='linear',
        div_factor=1e4,
        final_div_factor=1e4,
        by_epoch=False,
    )
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20000, val_interval=2000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
