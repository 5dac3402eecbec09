_base_ = ['../_base_/models/demo_vit.py', '../_base_/tasks/in_context_demo.py']

pretrained = dict(
    type='Pretrained',
    checkpoint='work_dirs/vit_classify/epoch_8.pth',
    prefix='backbone.',
)
model = dict(
    backbone={**_base_.backbone, **_base_.frozen_features, 'init_cfg': pretrained},
)
