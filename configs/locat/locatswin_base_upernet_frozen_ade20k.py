_base_ = ['../_base_/models/locatswin_base.py', '../_base_/tasks/upernet_frozen_ade20k.py']

model = dict(
    backbone={
        **_base_.backbone,
        **_base_.features,
        'out_indices': _base_.pyramid.out_indices,
        'init_cfg': _base_.pretrained,
    },
    neck=_base_.pyramid.neck,
    decode_head=dict(in_channels=_base_.pyramid.channels),
    auxiliary_head=dict(in_channels=_base_.pyramid.channels[2]),
    data_preprocessor=dict(test_cfg=dict(size_divisor=_base_.patch_size)),
)
