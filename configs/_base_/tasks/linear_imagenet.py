# Linear evaluation on ImageNet-1K, as DINO does it: a linear classifier on the frozen backbone's
# last class token, 100 epochs, 8 GPUs × 128 images.
_base_ = ['imagenet.py']

# The final-normed class token. Frozen: eval mode that survives .train(), no
# gradients, no stochastic depth.
linear_features = dict(out_type='cls_token', frozen=True)
# What is evaluated of DINO.
teacher = dict(type='Pretrained', prefix='teacher.module.backbone.')

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=_base_.num_classes),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bilinear'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='locat_mm.CheckAnnotations', num_classes=_base_.num_classes),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')),
    train_cfg=None,
)
# lr 1e-3 per 256 images; 4e-3 at the global batch of 1024.
auto_scale_lr = dict(base_batch_size=1024, enable=False)
# The constructor hands over what trains: the classifier alone.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=4e-3, momentum=0.9, weight_decay=0.0),
    constructor='locat_mm.SegmentorOptimWrapperConstructor',
)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, T_max=100, by_epoch=True)]
train_cfg = dict(max_epochs=100)
