# Linear evaluation on digit_scenes' objects: a linear classifier on the frozen backbone's last
# class token.
_base_ = ['demo_classify.py']

# The final-normed class token. Frozen: eval mode that survives .train(), no
# gradients, no stochastic depth.
linear_features = dict(out_type='cls_token', frozen=True)
# What is evaluated of DINO.
teacher = dict(type='Pretrained', prefix='teacher.module.backbone.')

# The constructor hands over what trains: the classifier alone.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=0.0),
    constructor='locat_mm.SegmentorOptimWrapperConstructor',
)
max_epochs = 10
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, T_max=max_epochs, by_epoch=True)]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
