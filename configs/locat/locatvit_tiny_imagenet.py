_base_ = ['../_base_/models/locatvit_tiny.py', '../_base_/tasks/imagenet.py']

model = dict(
    backbone={**_base_.backbone, **_base_.pretraining},
    neck=_base_.neck,
    head=dict(in_channels=_base_.embed_dim),
    data_preprocessor=dict(mean=_base_.image_mean, std=_base_.image_std),
)
