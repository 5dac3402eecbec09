_base_ = ['../../_base_/models/demo_vit_attached.py', '../../_base_/tasks/demo_segment.py']

pretrained = dict(
    type='Pretrained',
    checkpoint='work_dirs/demo_attach/attach/locatvit/seed0/classify/epoch_4.pth',
    prefix='backbone.',
)
model = dict(
    backbone={
        **_base_.attached,
        'backbone': {**_base_.backbone, **_base_.frozen_features},
        'init_cfg': pretrained,
    },
    decode_head=dict(in_channels=_base_.out_channels),
)
