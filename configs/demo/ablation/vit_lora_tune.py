_base_ = ['../vit_classify.py']

# A trained classifier of which LoRA of rank 4 alone trains, 4,096 numbers: ten times GAug's. As in
# vit_gaug_tuned_classify.py, PRR makes all patches count for the class.
model = dict(
    _delete_=True,
    type='LoRAModel',
    module=dict(
        _base_.model,
        backbone=dict(_base_.model.backbone, out_type='raw'),
        neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=2, pool='cls_token'),
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/demo/vit/seed0/classify/epoch_8.pth'
        ),
    ),
    rank=4,
    alpha=4,
    targets=[dict(type='qkv')],
)
optim_wrapper = dict(
    _delete_=True,
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.0),
    constructor='locat_mm.LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=5.0),
)
train_cfg = dict(max_epochs=4)
