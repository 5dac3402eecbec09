_base_ = ['../../_base_/models/demo_locatvit.py', '../../_base_/tasks/dino_demo.py']

model = dict(
    backbone={**_base_.backbone, **_base_.pretraining},
    neck=_base_.neck,
    head=dict(in_channels=_base_.out_channels),
)
# What is evaluated is the class token after PRR, as in the authors' code.
val_cfg = dict(features='neck')
test_cfg = dict(features='neck')
