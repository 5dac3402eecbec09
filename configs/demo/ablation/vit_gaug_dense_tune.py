_base_ = ['../dino/vit_dino.py']

# A trained ViT, of which GAug alone trains, without labels: patches of two crops should agree.
model = dict(
    type='locat_mm.DenseDINO',
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='identity',
        train='gaug',
        backbone=dict(_base_.model.backbone, out_type='featmap'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/demo/vit/seed0/classify/epoch_8.pth',
            prefix='backbone.',
        ),
    ),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='MultiView',
                num_views=[2],
                transforms=[
                    [
                        dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.5, 1.0)),
                        dict(type='ColorJitter', brightness=0.3, contrast=0.3),
                    ]
                ],
            ),
            dict(type='PackInputs'),
        ]
    )
)
optim_wrapper = dict(
    _delete_=True,
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.0),
    constructor='locat_mm.LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=5.0),
)
custom_hooks = []
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-6, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=4, val_interval=4)
# A map of patches has no class token.
val_cfg = dict(features='avg')
test_cfg = dict(features='avg')
