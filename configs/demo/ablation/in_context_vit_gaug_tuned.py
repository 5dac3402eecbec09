_base_ = ['../in_context_vit.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='identity',
        backbone=dict(_base_.model.backbone, init_cfg=None),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/vit_gaug_tuned_classify/epoch_4.pth',
            prefix='backbone.',
        ),
    ),
)
