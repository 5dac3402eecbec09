# DINO, learning without labels: algorithm, optimizer and schedule, as DINO's code has them. A task
# adds data. What is evaluated is the teacher: prefix='teacher.module.backbone.'.
_base_ = ['../runtime_pretrain.py']

model = dict(
    type='locat_mm.DINO',
    data_preprocessor=dict(type='SelfSupDataPreprocessor', to_rgb=True),
    head=dict(
        type='locat_mm.DINOHead',
        out_channels=65536,
        hidden_channels=2048,
        bottleneck_channels=256,
    ),
    loss=dict(
        type='locat_mm.DINOLoss',
        student_temp=0.1,
        teacher_temp=0.04,
        warmup_teacher_temp=0.04,
        warmup_epochs=0,
        center_momentum=0.9,
    ),
    # The teacher keeps 0.996 of itself at first, all of itself at the end.
    base_momentum=0.004,
)
train_dataloader = dict(
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
# No weight decay on biases and 1-d tensors; embeddings and GAug's matrices are decayed, too.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.04),
    # Its decay of learning rates is off; it leaves out what does not train, the teacher.
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=1.0, flat_decay_mult=0.0, bias_decay_mult=0.0, norm_decay_mult=0.0
    ),
)
# Gradients are clipped tensor by tensor, so not by clip_grad.
custom_hooks = [dict(type='locat_mm.DINOHook', max_norm=3.0, frozen_epochs=1)]
# Learning rate: linear up over 10 epochs, a cosine down to 1e-6. Weight decay: a cosine up to ten
# times its start, which leaves 0 at 0. A step every update.
warmup_epochs = 10
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=warmup_epochs,
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
train_cfg = dict(by_epoch=True, max_epochs=100)
