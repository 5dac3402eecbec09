_base_ = ['pe_small_in_context_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.LocAt',
        start='fixed',
        variance=25.0,
        alpha=1.0,
        layers=-1,
        backbone=_base_.model.backbone,
    ),
)
