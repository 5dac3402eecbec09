_base_ = ['dinov3_small_in_context_voc.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='identity',
        backbone=dict(
            _base_.model.backbone,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='work_dirs/dinov3_small_identity_voc/iter_20000.pth',
                prefix='backbone.',
            ),
        ),
    ),
)
