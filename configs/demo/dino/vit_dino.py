_base_ = ['../../_base_/models/demo_vit.py', '../../_base_/tasks/dino_demo.py']

model = dict(
    backbone={**_base_.backbone, **_base_.pretraining},
    neck=_base_.neck,
    head=dict(in_channels=_base_.out_channels),
)
