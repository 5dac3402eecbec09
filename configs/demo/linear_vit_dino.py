_base_ = [
    '../_base_/models/demo_linear_classifier.py',
    '../_base_/datasets/digit_objects.py',
    '../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        gaug=False,
        init_cfg=dict(checkpoint='work_dirs/vit_dino/epoch_8.pth'),
    ),
)
# Ten epochs; the paper has 100 on ImageNet.
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
