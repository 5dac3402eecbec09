_base_ = ['./vit_segment.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='fixed',
        variance=4.0,
        alpha=6.0,
        backbone=dict(_base_.model.backbone, init_cfg=None),
        init_cfg=_base_.model.backbone.init_cfg,
    ),
)
