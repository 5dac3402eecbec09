_base_ = ['../_base_/models/demo_locatvit.py', '../_base_/tasks/linear_demo.py']

checkpoint = 'work_dirs/locatvit_dino/epoch_8.pth'
model = dict(
    backbone={
        **_base_.backbone,
        **_base_.pretraining,
        'frozen': True,
        'init_cfg': {**_base_.teacher, 'checkpoint': checkpoint},
    },
    # The class token after PRR, as in the authors' code.
    neck=_base_.neck,
    head=dict(in_channels=_base_.out_channels),
)
