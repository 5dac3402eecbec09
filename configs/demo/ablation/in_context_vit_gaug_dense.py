_base_ = ['in_context_vit_gaug_tuned.py']

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='work_dirs/vit_gaug_dense_classify/tuned.pth')),
)
