_base_ = ['../_base_/models/vit_tiny.py', '../_base_/tasks/ade20k.py']

pretrained = dict(
    type='Pretrained',
    checkpoint='work_dirs/vit_tiny_imagenet/epoch_300.pth',
    prefix='backbone.',
)
model = dict(
    backbone={**_base_.backbone, **_base_.frozen_features, 'init_cfg': pretrained},
    decode_head=dict(in_channels=_base_.embed_dim),
)
