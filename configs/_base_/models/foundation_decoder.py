# linear_decoder.py for a frozen backbone of timm, with its final norm. The leaf gives name, weights
# and width; a patch of 14 pixels also needs sizes of its own.
_base_ = ['linear_decoder.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='locat_mm.TIMMBackbone',
        out_type='featmap',
        frozen=True,
        init_cfg=dict(type='Pretrained'),
    ),
)
