_base_ = ['dinov3_base_in_context_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='identity',
        backbone=dict(
            _base_.model.backbone,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='work_dirs/dinov3_base_identity_ade20k/iter_20000.pth',
                prefix='backbone.',
            ),
        ),
    ),
)
