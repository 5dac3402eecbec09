_base_ = ['dinov2_base_in_context_voc.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='identity',
        backbone=dict(
            _base_.model.backbone,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='work_dirs/dinov2_base_identity_voc/iter_20000.pth',
                prefix='backbone.',
            ),
        ),
    ),
)
