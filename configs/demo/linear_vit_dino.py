_base_ = ['../_base_/models/demo_vit.py', '../_base_/tasks/linear_demo.py']

checkpoint = 'work_dirs/vit_dino/epoch_8.pth'
model = dict(
    backbone={
        **_base_.backbone,
        **_base_.linear_features,
        'init_cfg': {**_base_.teacher, 'checkpoint': checkpoint},
    },
    head=dict(in_channels=_base_.out_channels),
)
