# DINO, 100 epochs: optimizer and schedule as in DINO's code.
optim_wrapper = dict(
    type='AmpOptimWrapper',  # float16, dynamic loss scale
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.04),
    # This constructor leaves out parameters that are not trained: the teacher's. Its layer-wise
    # decay of learning rates is off. No weight decay on biases and 1-d tensors; embeddings and
    # GAug's matrices are decayed.
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=1.0, flat_decay_mult=0.0, bias_decay_mult=0.0, norm_decay_mult=0.0
    ),
)
# The hook clips the gradient of each tensor on its own, which clip_grad does not do.
custom_hooks = [dict(type='locat_mm.DINOHook', max_norm=3.0, frozen_epochs=1)]
# lr 5e-4 per 256 images; 1e-3 at the global batch of 512.
auto_scale_lr = dict(base_batch_size=512, enable=False)
# Learning rate: linear up over 10 epochs, then a cosine down to 1e-6. Weight decay: a cosine up to
# ten times its start; groups without decay stay at 0. Both change every iteration.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=10,
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
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
