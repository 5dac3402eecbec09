_base_ = ['../_base_/models/vit_small.py', '../_base_/tasks/linear_imagenet.py']

checkpoint = 'work_dirs/vit_small_dino/epoch_100.pth'
model = dict(
    backbone={
        **_base_.backbone,
        **_base_.linear_features,
        'init_cfg': {**_base_.teacher, 'checkpoint': checkpoint},
    },
    head=dict(in_channels=_base_.out_channels),
)
