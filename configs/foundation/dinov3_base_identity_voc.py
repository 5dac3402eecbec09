_base_ = ['dinov3_base_voc.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='identity',
        train='gaug',
        backbone=dict(_base_.model.backbone, frozen=False),
    ),
)
