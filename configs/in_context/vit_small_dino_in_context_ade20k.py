_base_ = ['../_base_/models/vit_small.py', '../_base_/tasks/in_context_ade20k.py']

teacher = dict(
    type='Pretrained',
    checkpoint='work_dirs/vit_small_dino/epoch_100.pth',
    prefix='teacher.module.backbone.',
)
model = dict(backbone={**_base_.backbone, **_base_.frozen_features, 'init_cfg': teacher})
