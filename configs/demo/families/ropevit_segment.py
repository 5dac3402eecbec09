_base_ = ['../../_base_/models/demo_ropevit.py', '../../_base_/tasks/demo_segment.py']

pretrained = dict(type='Pretrained', checkpoint='work_dirs/ropevit_classify/epoch_8.pth')
model = dict(
    backbone={**_base_.backbone, **_base_.frozen_features, 'init_cfg': pretrained},
    decode_head=dict(in_channels=_base_.out_channels),
)
