# A frozen backbone and a linear decoder, 20k iterations of 32 images: the authors' recipe. A task
# adds data and classes.
_base_ = ['segmentor.py']

# The last block's patch map, before the final norm and without PRR. Frozen: eval mode that
# survives .train(), no gradients.
frozen_features = dict(out_type='featmap', final_norm=False, frozen=True)
model = dict(
    decode_head=dict(
        type='locat_mm.LinearSegHead',
        channels=512,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=False),
    ),
)
# The constructor hands over what trains: the decoder's parameters alone.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    constructor='locat_mm.SegmentorOptimWrapperConstructor',
)
auto_scale_lr = dict(base_batch_size=32, enable=False)
# One cycle, linear both ways: 1e-7 up to 1e-3 over a quarter, down to 1e-11.
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
