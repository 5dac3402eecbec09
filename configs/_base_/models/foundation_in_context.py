# in_context_segmentor.py for a frozen backbone of timm, with its final norm.
_base_ = ['in_context_segmentor.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.TIMMBackbone',
        out_type='featmap',
        frozen=True,
        init_cfg=dict(type='Pretrained'),
    ),
)
