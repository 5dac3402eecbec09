_base_ = ['../vit_classify.py']

# A trained classifier, of which GAug alone trains, 400 numbers. PRR makes all patches count for the
# class; without it the last layer's GAug would get no gradient.
model = dict(
    _delete_=True,
    type='locat_mm.LocAt',
    start='identity',
    train='gaug',
    backbone=dict(
        _base_.model,
        backbone=dict(_base_.model.backbone, out_type='raw'),
        neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=2, pool='cls_token'),
    ),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/vit/seed0/classify/epoch_8.pth'),
)
optim_wrapper = dict(
    _delete_=True,
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.0),
    # Gives the optimizer the parameters that train alone.
    constructor='locat_mm.LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=5.0),
)
train_cfg = dict(max_epochs=4)
