_base_ = ['../_base_/models/vit_tiny.py', '../_base_/tasks/ade20k.py']

model = dict(
    backbone={**_base_.backbone, **_base_.frozen_features},
    decode_head=dict(in_channels=_base_.embed_dim),
)
