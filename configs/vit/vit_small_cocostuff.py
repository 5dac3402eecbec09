_base_ = ['../_base_/models/vit_small.py', '../_base_/tasks/cocostuff.py']

model = dict(
    backbone={**_base_.backbone, **_base_.frozen_features, 'init_cfg': _base_.pretrained},
    decode_head=dict(in_channels=_base_.out_channels),
    data_preprocessor=dict(test_cfg=dict(size_divisor=_base_.patch_size)),
)
