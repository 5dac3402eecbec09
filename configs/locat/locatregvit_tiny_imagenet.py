_base_ = ['../_base_/models/locatregvit_tiny.py', '../_base_/tasks/imagenet.py']

model = dict(backbone={**_base_.backbone, **_base_.pretraining}, neck=_base_.neck, head=_base_.head)
