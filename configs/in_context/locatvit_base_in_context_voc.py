_base_ = ['../_base_/models/locatvit_base.py', '../_base_/tasks/in_context_voc.py']

model = dict(
    backbone={**_base_.backbone, **_base_.frozen_features, 'init_cfg': _base_.pretrained},
)
