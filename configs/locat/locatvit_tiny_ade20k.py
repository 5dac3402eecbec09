_base_ = ['../_base_/models/locatvit_tiny.py', '../_base_/tasks/ade20k.py']

pretrained = dict(
    type='Pretrained',
    checkpoint='work_dirs/locatvit_tiny_imagenet/epoch_300.pth',
    prefix='backbone.',
)
model = dict(
    backbone={**_base_.backbone, **_base_.frozen_features, 'init_cfg': pretrained},
    decode_head=dict(in_channels=_base_.embed_dim),
)
